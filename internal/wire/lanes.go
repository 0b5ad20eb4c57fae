package wire

import (
	"context"
	"sync"
)

// maxDials is how many dials to one address are under way; more wait. It keeps a node that opens many connections
// at once well below the bound of those that it opens them to.
const maxDials = 8

// lanes bounds the dials by address.
type lanes struct {
	mu   sync.Mutex
	each map[string]*lane
}

type lane struct {
	users int // under way and waiting
	slots chan struct{}
}

// enter waits for its turn, and returns what ends it.
func (l *lanes) enter(ctx context.Context, addr string) (leave func(), err error) {
	l.mu.Lock()
	if l.each == nil {
		l.each = map[string]*lane{}
	}
	one := l.each[addr]
	if one == nil {
		one = &lane{slots: make(chan struct{}, maxDials)}
		l.each[addr] = one
	}
	one.users++
	l.mu.Unlock()
	gone := func() {
		l.mu.Lock()
		defer l.mu.Unlock()
		if one.users--; one.users == 0 {
			delete(l.each, addr)
		}
	}
	select {
	case one.slots <- struct{}{}:
		return func() { <-one.slots; gone() }, nil
	case <-ctx.Done():
		gone()
		return nil, ctx.Err()
	}
}
