package machine

import (
	"context"
	"slices"
)

// waiter is somebody who waits until a revision or a log index is applied here.
type waiter struct {
	rev, index uint64
	done       chan struct{}
}

// wakeWaiters is called with the lock held.
func (f *Machine) wakeWaiters() {
	rev := f.rev.Load()
	keep := f.waiters[:0]
	for _, w := range f.waiters {
		if w.rev <= rev && w.index <= f.applied || f.closed || f.retired {
			close(w.done)
		} else {
			keep = append(keep, w)
		}
	}
	clear(f.waiters[len(keep):])
	f.waiters = keep
}

// await returns a channel that closes when the revision and the log index are applied, or never
// will be.
func (f *Machine) await(rev, index uint64) <-chan struct{} {
	w := waiter{rev: rev, index: index, done: make(chan struct{})}
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.closed || f.retired || f.rev.Load() >= rev && f.applied >= index {
		close(w.done)
	} else {
		f.waiters = append(f.waiters, w)
	}
	return w.done
}

// WaitFor waits until the revision and the log index are applied here.
func (f *Machine) WaitFor(ctx context.Context, rev, index uint64) error {
	done := f.await(rev, index)
	select {
	case <-done:
	case <-ctx.Done():
		f.forget(done)
		return ctx.Err()
	}
	f.mu.RLock()
	defer f.mu.RUnlock()
	switch {
	case f.rev.Load() >= rev && f.applied >= index:
		return nil
	case f.retired && !f.closed:
		return ErrRetired
	}
	return ErrClosed
}

// forget drops a waiter that gave up.
func (f *Machine) forget(done <-chan struct{}) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.waiters = slices.DeleteFunc(f.waiters, func(w waiter) bool { return w.done == done })
}
