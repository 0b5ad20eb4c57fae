package apistore

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/watch"
	"k8s.io/apiserver/pkg/features"
	"k8s.io/apiserver/pkg/storage"
	utilfeature "k8s.io/apiserver/pkg/util/feature"
	utilflowcontrol "k8s.io/apiserver/pkg/util/flowcontrol"

	"github.com/podman-swarm/podman-swarm/internal/state"
)

const (
	// resultBuffer is how many decoded events wait for a client. Encoded ones wait in the store's
	// window at no cost, so there is no reason for more.
	resultBuffer = 16
	// readBuffer is how many events are taken from the store's window at once.
	readBuffer = 16
	// lastBookmark is how long before its request's deadline a watch says how far it got.
	lastBookmark = 2 * time.Second
)

// Watch implements storage.Interface.
func (s *store) Watch(ctx context.Context, key string, opts storage.ListOptions) (watch.Interface, error) {
	key, err := s.prepareKey(key, opts.Recursive)
	if err != nil {
		return nil, err
	}
	rev, err := versioner().ParseResourceVersion(opts.ResourceVersion)
	if err != nil {
		return nil, err
	}
	if (opts.ProgressNotify || opts.Predicate.AllowWatchBookmarks) && s.newFunc == nil {
		return nil, fmt.Errorf("bookmarks for %s need a newFunc", s.resource)
	}
	sendInitial, explicit := initialEvents(rev, opts)
	if rev == 0 && !sendInitial {
		view, err := s.view(ctx, opts.ResourceVersion)
		if err != nil {
			return nil, err
		}
		rev = view.Revision()
	}
	w := &watcher{
		store:     s,
		key:       key,
		recursive: opts.Recursive,
		pred:      opts.Predicate,
		all:       opts.Predicate.Empty(),
		rev:       rev,
		progress:  opts.ProgressNotify,
		bookmarks: opts.ProgressNotify || opts.Predicate.AllowWatchBookmarks,
		result:    make(chan watch.Event, resultBuffer),
	}
	if !sendInitial {
		w.said = rev
	}
	ctx, w.cancel = context.WithCancel(ctx)
	how := start{
		rv:      opts.ResourceVersion,
		initial: sendInitial,
		mark:    explicit && opts.Predicate.AllowWatchBookmarks,
	}
	if !s.watchers.start(w, func() { w.run(ctx, how) }) {
		w.cancel()
		return nil, apierrors.NewServiceUnavailable("the storage of " + s.resource.String() + " is closed")
	}
	utilflowcontrol.WatchInitialized(ctx)
	return w, nil
}

// initialEvents says whether a watch begins with the objects that exist, and whether the client
// asked for that explicitly rather than by an unset resourceVersion.
func initialEvents(rev uint64, opts storage.ListOptions) (send, explicit bool) {
	if opts.SendInitialEvents == nil || !utilfeature.DefaultFeatureGate.Enabled(features.WatchList) {
		return rev == 0, false
	}
	return *opts.SendInitialEvents, *opts.SendInitialEvents
}

// start says how a watch begins.
type start struct {
	rv      string // what the initial objects must be as new as
	initial bool   // send existing objects as ADDED
	mark    bool   // send a bookmark after them
}

// watcher implements watch.Interface with one goroutine.
type watcher struct {
	store     *store
	key       string
	recursive bool
	pred      storage.SelectionPredicate
	all       bool   // pred selects everything
	rev       uint64 // everything up to here has been sent
	said      uint64 // newest revision the client was told as such, by itself or a bookmark
	progress  bool   // RequestWatchProgress is meant for this watch
	bookmarks bool
	alarm     alarm
	cancel    context.CancelFunc
	result    chan watch.Event
}

// Stop implements watch.Interface.
func (w *watcher) Stop() { w.cancel() }

// ResultChan implements watch.Interface.
func (w *watcher) ResultChan() <-chan watch.Event { return w.result }

func (w *watcher) run(ctx context.Context, s start) {
	defer close(w.result)
	defer w.cancel()
	err := w.sendInitial(ctx, s)
	if err == nil {
		err = w.follow(ctx)
	}
	if err != nil && ctx.Err() == nil && !errors.Is(err, state.ErrClosed) {
		_ = w.send(ctx, watch.Event{Type: watch.Error, Object: watchStatus(err)}) // if the watcher has gone, there is nobody to tell
	}
}

// errStopped ends a watch without a word: the client has gone.
var errStopped = errors.New("watch stopped")

func (w *watcher) send(ctx context.Context, e watch.Event) error {
	select {
	case w.result <- e:
		return nil
	case <-ctx.Done():
		return errStopped
	}
}

// sendInitial streams what exists, one decoded object at a time.
func (w *watcher) sendInitial(ctx context.Context, s start) error {
	if !s.initial {
		return nil
	}
	view, err := w.store.view(ctx, s.rv)
	if storage.IsTooLargeResourceVersion(err) {
		retry := 1 + rand.IntN(3) // seconds; spread, because many clients lost the same server
		return storage.NewTooLargeResourceVersionError(w.rev, view.Revision(), retry)
	}
	if err != nil {
		return err
	}
	w.rev = view.Revision()
	add := func(e *state.Entry) bool {
		err = w.added(ctx, e)
		return err == nil
	}
	if w.recursive {
		view.Ascend(w.key, prefixEnd(w.key), add)
	} else if e, ok := view.Get(w.key); ok {
		add(e)
	}
	if err != nil || !s.mark {
		return err
	}
	return w.bookmark(ctx, true)
}

// follow sends what happens after w.rev until ctx ends or the window has moved past this watch.
func (w *watcher) follow(ctx context.Context) error {
	events, err := w.open(ctx)
	if err != nil {
		return err
	}
	defer events.Close()
	buf := make([]state.Event, readBuffer)
	waitCtx := w.alarm.set(ctx, w.nextBookmark(ctx))
	defer func() { w.alarm.stop() }()
	for {
		got, upTo, err := events.Next(waitCtx, buf)
		due := err != nil && errors.Is(err, waitCtx.Err())
		if ctx.Err() != nil || err != nil && !due {
			return err
		}
		for i := range got {
			if err := w.deliver(ctx, &got[i]); err != nil {
				return err
			}
		}
		clear(got) // the buffer must not keep old values alive
		w.rev = upTo
		if !due { // Next returns what there is before it returns the end of its context
			continue
		}
		if w.alarm.requested() || w.rev > w.said {
			if err := w.bookmark(ctx, false); err != nil {
				return err
			}
		}
		waitCtx = w.alarm.set(ctx, w.nextBookmark(ctx))
	}
}

// open starts reading after w.rev. A revision that this replica has not reached is waited for once
// by a barrier; one that still lies ahead belongs to another history and is answered as expired, so
// that the client lists again.
func (w *watcher) open(ctx context.Context) (*state.Watch, error) {
	events, err := w.store.replica.WatchPrefix(w.key, w.rev)
	if !errors.Is(err, state.ErrFuture) {
		return events, err
	}
	if err := w.store.barrier(ctx); err != nil {
		return nil, err
	}
	return w.store.replica.WatchPrefix(w.key, w.rev)
}

// nextBookmark returns how long until the next bookmark, 0 for never.
func (w *watcher) nextBookmark(ctx context.Context) time.Duration {
	if !w.bookmarks {
		return 0
	}
	next := w.store.bookmarkEvery
	if deadline, ok := ctx.Deadline(); ok {
		if left := time.Until(deadline) - lastBookmark; left > 0 {
			next = min(next, left)
		}
	}
	return next
}
