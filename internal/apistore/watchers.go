package apistore

import (
	"context"
	"sync"
	"time"
)

// watcherSet is the running watches of one resource.
type watcherSet struct {
	mu      sync.Mutex
	closed  bool
	running map[*watcher]struct{}
	wg      sync.WaitGroup
}

// start runs w's loop in a goroutine of the set. It reports false when the set is closed.
func (s *watcherSet) start(w *watcher, run func()) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return false
	}
	s.running[w] = struct{}{}
	s.wg.Go(func() {
		defer s.remove(w)
		run()
	})
	return true
}

func (s *watcherSet) remove(w *watcher) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.running, w)
}

// close stops all watches and waits for them.
func (s *watcherSet) close() {
	s.mu.Lock()
	s.closed = true
	for w := range s.running {
		w.cancel()
	}
	s.mu.Unlock()
	s.wg.Wait()
}

// notify asks every watch that wants progress notifications for one.
func (s *watcherSet) notify() {
	s.mu.Lock()
	defer s.mu.Unlock()
	for w := range s.running {
		if w.progress {
			w.alarm.ring()
		}
	}
}

// alarm interrupts a watch that waits for events: when a bookmark is due, or on request. It is a
// context with a deadline, which costs a timer and no goroutine.
type alarm struct {
	mu     sync.Mutex
	cancel context.CancelFunc
	rung   bool
}

// set returns a context that ends after d (0 = never), when ring is called, or with ctx.
func (a *alarm) set(ctx context.Context, d time.Duration) context.Context {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.cancel != nil {
		a.cancel()
	}
	if d > 0 {
		ctx, a.cancel = context.WithTimeout(ctx, d)
	} else {
		ctx, a.cancel = context.WithCancel(ctx)
	}
	if a.rung {
		a.cancel()
	}
	return ctx
}

func (a *alarm) ring() {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.rung = true
	if a.cancel != nil {
		a.cancel()
	}
}

// requested reports whether ring was called since the last time it was asked.
func (a *alarm) requested() bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	rung := a.rung
	a.rung = false
	return rung
}

func (a *alarm) stop() {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.cancel != nil {
		a.cancel()
	}
}
