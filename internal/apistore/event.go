package apistore

import (
	"context"
	"errors"
	"strings"

	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/watch"
	"k8s.io/apiserver/pkg/storage"

	"github.com/podman-swarm/podman-swarm/internal/state"
)

// added sends an existing object, if it is selected.
func (w *watcher) added(ctx context.Context, e *state.Entry) error {
	obj, err := w.decode(ctx, e, e.ModRevision)
	if err != nil || !w.selects(obj) {
		return err
	}
	return w.send(ctx, watch.Event{Type: watch.Added, Object: obj})
}

// deliver sends what a change means to this watch: an object that enters or leaves the selection is
// ADDED or DELETED for it.
func (w *watcher) deliver(ctx context.Context, e *state.Event) error {
	if e.Key != w.key && (!w.recursive || !strings.HasPrefix(e.Key, w.key)) {
		return nil
	}
	before, now, err := w.objects(ctx, e)
	if err != nil {
		return err
	}
	var out watch.Event
	switch {
	case e.Entry != nil && e.Prev != nil && w.all:
		out = watch.Event{Type: watch.Modified, Object: now}
	case now != nil && before != nil:
		out = watch.Event{Type: watch.Modified, Object: now}
	case now != nil:
		out = watch.Event{Type: watch.Added, Object: now}
	case before != nil:
		out = watch.Event{Type: watch.Deleted, Object: before}
	default:
		return nil
	}
	return w.send(ctx, out)
}

// objects returns the object before and after a change, nil where it does not exist or is not
// selected. The old object is decoded only when it matters, and carries the revision of the change.
func (w *watcher) objects(ctx context.Context, e *state.Event) (before, now runtime.Object, err error) {
	if e.Entry != nil {
		if now, err = w.decode(ctx, e.Entry, e.Revision); err != nil {
			return nil, nil, err
		}
		if !w.selects(now) {
			now = nil
		}
	}
	if e.Prev != nil && (e.Entry == nil || !w.all) {
		before, err = w.decode(ctx, e.Prev, e.Revision)
		var corrupt *corruptError
		switch {
		case errors.As(err, &corrupt) && e.Entry == nil:
			return nil, nil, &corruptDeletedError{err: corrupt}
		case err != nil:
			return nil, nil, err
		case !w.selects(before):
			before = nil
		}
	}
	return before, now, nil
}

func (w *watcher) decode(ctx context.Context, e *state.Entry, rev uint64) (runtime.Object, error) {
	plain, _, err := w.store.coder.open(ctx, e.Key, e.Value)
	if err != nil {
		return nil, err
	}
	return w.store.coder.decodeNew(plain, rev)
}

func (w *watcher) selects(obj runtime.Object) bool {
	if w.all {
		return true
	}
	ok, err := w.pred.Matches(obj)
	return err == nil && ok
}

// bookmark tells the client that it has seen everything up to w.rev. The first one after the
// initial events says so in an annotation that reflectors wait for.
func (w *watcher) bookmark(ctx context.Context, initialEnd bool) error {
	obj := w.store.newFunc()
	if err := setVersion(obj, w.rev); err != nil {
		return err
	}
	if initialEnd {
		if err := storage.AnnotateInitialEventsEndBookmark(obj); err != nil {
			return err
		}
	}
	w.said = w.rev
	return w.send(ctx, watch.Event{Type: watch.Bookmark, Object: obj})
}
