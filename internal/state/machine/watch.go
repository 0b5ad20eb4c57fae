package machine

import (
	"context"
	"slices"
	"strings"
	"sync"
)

// Watch reads the events below a prefix in order, each exactly once. It is a cursor into the
// store's history: it buffers nothing, so a slow reader costs nothing and is told ErrCompacted when
// the window has moved past it. One goroutine at a time may use it.
type Watch struct {
	f      *Machine
	group  *group
	wake   chan struct{}
	epoch  uint64
	closed bool
	// pending is the oldest revision that may hold an event not yet handed out; 0 when there is
	// none, and then the watch stands in its group's idle list. Written by the reader under
	// the read lock or by the state machine under the write lock.
	pending uint64
	upTo    uint64
}

// group is all watches of one prefix.
type group struct {
	prefix string
	refs   int
	idle   []*Watch
}

// watchers finds the watches that a key concerns without visiting the others.
type watchers struct {
	mu      sync.Mutex // after Machine.mu
	groups  map[string]*group
	lengths []int // distinct lengths of the prefixes, ascending
	epoch   uint64
}

func (w *watchers) init() { w.groups = map[string]*group{} }

// notify marks the idle watches of every prefix of key and wakes them. Watches that are behind
// already are not even visited. Called with Machine.mu held for writing.
func (w *watchers) notify(key string, rev uint64) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, n := range w.lengths {
		if n > len(key) {
			return
		}
		if g := w.groups[key[:n]]; g != nil && len(g.idle) > 0 {
			for i, one := range g.idle {
				one.pending = rev
				one.signal()
				g.idle[i] = nil
			}
			g.idle = g.idle[:0]
		}
	}
}

// wakeAll wakes the sleeping watches; they find out why themselves.
func (w *watchers) wakeAll() {
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, g := range w.groups {
		for _, one := range g.idle {
			one.signal()
		}
	}
}

func (w *watchers) join(x *Watch, prefix string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	g := w.groups[prefix]
	if g == nil {
		g = &group{prefix: prefix}
		w.groups[prefix] = g
		w.measure()
	}
	g.refs++
	x.group, x.epoch = g, w.epoch
	if x.pending == 0 {
		g.idle = append(g.idle, x)
	}
}

func (w *watchers) leave(x *Watch) {
	w.mu.Lock()
	defer w.mu.Unlock()
	g := x.group
	if i := slices.Index(g.idle, x); i >= 0 {
		g.idle = slices.Delete(g.idle, i, i+1)
	}
	if g.refs--; g.refs == 0 {
		delete(w.groups, g.prefix)
		w.measure()
	}
}

func (w *watchers) rest(x *Watch) {
	w.mu.Lock()
	defer w.mu.Unlock()
	x.group.idle = append(x.group.idle, x)
}

func (w *watchers) measure() {
	w.lengths = w.lengths[:0]
	for p := range w.groups {
		if i, ok := slices.BinarySearch(w.lengths, len(p)); !ok {
			w.lengths = slices.Insert(w.lengths, i, len(p))
		}
	}
}

func (x *Watch) signal() {
	select {
	case x.wake <- struct{}{}:
	default:
	}
}

// Watch starts a watch of the events after a revision whose key begins with prefix.
func (f *Machine) Watch(prefix string, after uint64) (*Watch, error) {
	f.mu.RLock()
	defer f.mu.RUnlock()
	rev := f.rev.Load()
	switch {
	case f.closed:
		return nil, ErrClosed
	case f.retired:
		return nil, ErrRetired
	case after > rev:
		return nil, ErrFuture
	case after < f.hist.base:
		return nil, ErrCompacted
	}
	x := &Watch{f: f, wake: make(chan struct{}, 1), upTo: after}
	if after < rev {
		x.pending = after + 1
	}
	f.watches.join(x, prefix)
	return x, nil
}

// Close ends the watch; Next must not be running.
func (x *Watch) Close() {
	if !x.closed {
		x.closed = true
		x.f.watches.leave(x)
	}
}

// defaultBatch is how many events Next returns at most when it is given no buffer.
const defaultBatch = 128

// Next waits until there is something newer and returns it in order, at most cap(buf) events (128
// when that is 0) in buf's memory. Every matching event up to and including revision upTo has
// then been handed out. When ctx ends it returns ctx's error; upTo is right then too, which
// makes a deadline the way to learn about progress. ErrCompacted: the watch fell behind the window,
// or the replica's history does not go on; begin anew from a list.
func (x *Watch) Next(ctx context.Context, buf []Event) (evs []Event, upTo uint64, err error) {
	for {
		evs, err = x.take(buf)
		if err != nil || len(evs) > 0 {
			return evs, x.upTo, err
		}
		select {
		case <-x.wake:
		case <-ctx.Done():
			evs, err = x.take(buf)
			if err == nil && len(evs) == 0 {
				err = ctx.Err()
			}
			return evs, x.upTo, err
		}
	}
}

// take collects what is there, without waiting.
func (x *Watch) take(buf []Event) ([]Event, error) {
	f := x.f
	f.mu.RLock()
	defer f.mu.RUnlock()
	switch {
	case f.closed || x.closed:
		return nil, ErrClosed
	case x.epoch != f.watches.epoch:
		return nil, ErrCompacted
	case x.pending == 0:
		x.upTo = f.rev.Load()
		return nil, nil
	case x.pending <= f.hist.base:
		return nil, ErrCompacted
	}
	limit := cap(buf)
	if limit == 0 {
		limit = defaultBatch
	}
	evs := buf[:0]
	for _, ev := range f.hist.since(x.pending - 1) {
		if strings.HasPrefix(ev.Key, x.group.prefix) {
			if len(evs) == limit {
				x.pending, x.upTo = ev.Revision, ev.Revision-1
				return evs, nil
			}
			evs = append(evs, ev)
		}
	}
	x.pending, x.upTo = 0, f.rev.Load()
	f.watches.rest(x)
	return evs, nil
}
