package apistore

import (
	"context"
	"errors"
	"fmt"
	"reflect"

	"k8s.io/apimachinery/pkg/api/meta"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/conversion"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apiserver/pkg/features"
	"k8s.io/apiserver/pkg/storage"
	utilfeature "k8s.io/apiserver/pkg/util/feature"

	"github.com/podman-swarm/podman-swarm/internal/state"
)

// GetList implements storage.Interface. A page is read from one snapshot, and only as many objects
// are decoded as it takes to fill it.
func (s *store) GetList(ctx context.Context, key string, opts storage.ListOptions, listObj runtime.Object) error {
	prefix, err := s.prepareKey(key, opts.Recursive)
	if err != nil {
		return err
	}
	items, err := newItems(listObj)
	if err != nil {
		return err
	}
	rev, continueKey, err := storage.ValidateListOptions(prefix, versioner(), opts)
	if err != nil {
		return err
	}
	view, err := s.listView(ctx, opts, rev)
	if errors.Is(err, state.ErrCompacted) {
		return expiredList(continueKey, prefix)
	}
	if err != nil {
		return err
	}
	p := page{
		store:  s,
		pred:   opts.Predicate,
		items:  items,
		errors: listErrors{collect: utilfeature.DefaultFeatureGate.Enabled(features.AllowUnsafeMalformedObjectDeletion)},
	}
	if !opts.Recursive {
		if entry, ok := view.Get(prefix); ok {
			p.add(ctx, entry)
		}
		return p.finish(listObj, view.Revision(), "", nil)
	}
	from, end := prefix, prefixEnd(prefix)
	if continueKey != "" {
		from = continueKey
	}
	if p.pred.Empty() && p.pred.Limit == 0 {
		items.grow(view.Count(from, end))
	}
	view.Ascend(from, end, func(e *state.Entry) bool { return p.add(ctx, e) })
	if !p.more {
		return p.finish(listObj, view.Revision(), "", nil)
	}
	count := 0
	if p.pred.Empty() {
		count = view.Count(from, end)
	}
	token, remaining, err := storage.PrepareContinueToken(
		p.last, prefix, int64(view.Revision()), int64(count), true, opts)
	if err != nil {
		return err
	}
	return p.finish(listObj, view.Revision(), token, remaining)
}

// listView returns the snapshot a list reads: exactly rev, or with rev 0 one that is as new as the
// options ask for.
func (s *store) listView(ctx context.Context, opts storage.ListOptions, rev int64) (state.View, error) {
	if rev == 0 {
		wanted := opts.ResourceVersion
		if opts.Recursive && opts.Predicate.Continue != "" {
			wanted = "" // an inconsistent continue goes on at the newest revision
		}
		return s.view(ctx, wanted)
	}
	view, err := s.replica.ViewAt(uint64(rev))
	if !errors.Is(err, state.ErrFuture) {
		return view, err
	}
	// This replica may only be late.
	if err := s.barrier(ctx); err != nil {
		return state.View{}, err
	}
	view, err = s.replica.ViewAt(uint64(rev))
	if errors.Is(err, state.ErrFuture) {
		return view, storage.NewTooLargeResourceVersionError(uint64(rev), s.replica.View().Revision(), 0)
	}
	return view, err
}

// page is what one list returns.
type page struct {
	store  *store
	pred   storage.SelectionPredicate
	items  *items
	errors listErrors
	last   string // last key looked at
	more   bool   // the limit was reached before the end
}

// add decodes an entry and keeps it if it is selected. It reports whether to go on.
func (p *page) add(ctx context.Context, e *state.Entry) bool {
	if p.pred.Limit > 0 && int64(p.items.v.Len()) >= p.pred.Limit {
		p.more = true
		return false
	}
	p.last = e.Key
	plain, _, err := p.store.coder.open(ctx, e.Key, e.Value)
	if err != nil {
		err = storage.NewInternalError(fmt.Errorf("unable to transform key %q: %w", e.Key, err))
		return !p.errors.add(e.Key, err)
	}
	if ctx.Err() != nil {
		err = storage.NewTimeoutError(e.Key, "request did not complete within requested timeout")
		p.errors.abort = err
		return false
	}
	obj, err := p.store.coder.decodeItem(plain, e.ModRevision, p.items.next())
	if err != nil {
		p.items.drop()
		return !p.errors.add(e.Key, err)
	}
	if matched, err := p.pred.Matches(obj); err != nil || !matched {
		p.items.drop()
		return true
	}
	p.items.keep(obj)
	return true
}

func (p *page) finish(listObj runtime.Object, rev uint64, token string, remaining *int64) error {
	if err := p.errors.err(); err != nil {
		return err
	}
	if p.items.v.IsNil() { // clients tell "items": [] from "items": null
		p.items.v.Set(reflect.MakeSlice(p.items.v.Type(), 0, 0))
	}
	if err := versioner().UpdateList(listObj, rev, token, remaining); err != nil {
		return err
	}
	if utilfeature.DefaultFeatureGate.Enabled(features.ShardedListAndWatch) {
		p.pred.SetShardInfoOnList(listObj)
	}
	return nil
}

// items is the Items slice of a list object. Objects are decoded in place, into the slice's spare
// capacity, which saves a copy of every struct.
type items struct {
	v          reflect.Value
	apiVersion string // of an unstructured list: new items must say it
	pending    runtime.Object
}

func newItems(listObj runtime.Object) (*items, error) {
	ptr, err := meta.GetItemsPtr(listObj)
	if err != nil {
		return nil, err
	}
	v, err := conversion.EnforcePtr(ptr)
	if err != nil {
		return nil, fmt.Errorf("need ptr to slice: %w", err)
	}
	if v.Kind() != reflect.Slice {
		return nil, fmt.Errorf("need ptr to slice, not to %s", v.Kind())
	}
	it := &items{v: v}
	if l, ok := listObj.(*unstructured.UnstructuredList); ok {
		it.apiVersion = l.GetAPIVersion()
	}
	return it, nil
}

func (it *items) grow(n int) {
	if spare := it.v.Cap() - it.v.Len(); n > spare {
		it.v.Grow(n - spare)
	}
}

// next returns a zero object to decode into. Every call is followed by keep or drop.
func (it *items) next() runtime.Object {
	if it.apiVersion != "" {
		it.pending = &unstructured.Unstructured{Object: map[string]any{"apiVersion": it.apiVersion}}
		return it.pending
	}
	it.pending = it.slot().Addr().Interface().(runtime.Object)
	return it.pending
}

// slot is the element after the last one.
func (it *items) slot() reflect.Value {
	n := it.v.Len()
	it.v.Grow(1)
	it.v.SetLen(n + 1)
	slot := it.v.Index(n)
	it.v.SetLen(n)
	return slot
}

func (it *items) keep(obj runtime.Object) {
	slot := it.slot()
	if obj != slot.Addr().Interface() {
		slot.Set(reflect.ValueOf(obj).Elem())
	}
	it.v.SetLen(it.v.Len() + 1)
}

func (it *items) drop() {
	if it.apiVersion == "" {
		it.slot().SetZero()
	}
}
