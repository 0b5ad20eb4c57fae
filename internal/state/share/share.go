package share

import (
	"context"
	"sync"
)

// Rounds lets callers share rounds: whoever comes while a round runs shares the next one, so
// any number of readers costs one round at a time.
type Rounds struct {
	Do func() (uint64, error) // one round; its result holds for everybody who came before it began
	// Closed is what who comes after Close gets.
	Closed error

	mu     sync.Mutex
	next   *round
	busy   bool
	closed bool
	wg     sync.WaitGroup
}

type round struct {
	done chan struct{}
	rev  uint64
	err  error
}

// Wait joins the next round.
func (c *Rounds) Wait(ctx context.Context) (uint64, error) {
	c.mu.Lock()
	if c.closed {
		c.mu.Unlock()
		return 0, c.Closed
	}
	if c.next == nil {
		c.next = &round{done: make(chan struct{})}
	}
	r := c.next
	if !c.busy {
		c.busy = true
		c.wg.Go(c.run)
	}
	c.mu.Unlock()
	select {
	case <-r.done:
		return r.rev, r.err
	case <-ctx.Done():
		return 0, ctx.Err()
	}
}

// Close refuses new callers and waits for the rounds that run.
func (c *Rounds) Close() {
	c.mu.Lock()
	c.closed = true
	c.mu.Unlock()
	c.wg.Wait()
}

func (c *Rounds) run() {
	for {
		c.mu.Lock()
		r := c.next
		c.next = nil
		if r == nil {
			c.busy = false
			c.mu.Unlock()
			return
		}
		c.mu.Unlock()
		r.rev, r.err = c.Do()
		close(r.done)
	}
}
