package state

import (
	"context"
	"sync"

	"github.com/podman-swarm/podman-swarm/internal/state/engine"
)

// coalescer lets callers share rounds: whoever comes while a round runs shares the next one, so
// any number of readers costs one round at a time.
type coalescer struct {
	do func() (uint64, error) // one round; its result holds for everybody who came before it began

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

// wait joins the next round.
func (c *coalescer) wait(ctx context.Context) (uint64, error) {
	c.mu.Lock()
	if c.closed {
		c.mu.Unlock()
		return 0, ErrClosed
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

// close refuses new callers and waits for the rounds that run.
func (c *coalescer) close() {
	c.mu.Lock()
	c.closed = true
	c.mu.Unlock()
	c.wg.Wait()
}

func (c *coalescer) run() {
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
		r.rev, r.err = c.do()
		close(r.done)
	}
}

// barrierTimeout bounds one round.
const barrierTimeout = leaderWait

// Barrier waits until this replica's memory holds every write that was acknowledged anywhere
// before the call: a read after it is linearizable. ErrNoLeader when nobody can vouch for that.
func (s *Store) Barrier(ctx context.Context) error {
	if s.ctx.Err() != nil {
		return ErrClosed
	}
	if in := s.instance(); in.Alone() && in.Machine == s.machine() {
		// No other replica can have acknowledged anything, and Open applied all there was: true
		// also while this one does not lead, because the disk is full.
		return in.CaughtUp(ctx)
	}
	rev, err := s.barrier.wait(ctx)
	if err != nil {
		return err
	}
	return s.WaitRevision(ctx, rev)
}

// barrierRound asks the leader for a revision that no acknowledged write is beyond.
func (s *Store) barrierRound() (rev uint64, err error) {
	ctx, cancel := context.WithTimeout(s.ctx, barrierTimeout)
	defer cancel()
	err = s.atLeader(ctx, func(ctx context.Context, in *engine.Engine) (err error) {
		rev, err = s.vouch(ctx, in)
		return err
	}, func(ctx context.Context, in *engine.Engine, leader string) (err error) {
		rev, err = s.forwardBarrier(ctx, in, leader)
		return err
	})
	if s.ctx.Err() != nil {
		return 0, ErrClosed
	}
	return rev, err
}

// vouch returns the revision of everything committed, once this replica is known to lead still.
func (s *Store) vouch(ctx context.Context, in *engine.Engine) (uint64, error) {
	// The commit index must be taken before the question who leads: caughtUp takes a later one,
	// which is as good, since it only asks for more.
	if !in.Alone() {
		if err := in.Await(ctx, in.Raft.VerifyLeader); err != nil {
			if ctx.Err() != nil {
				return 0, ctx.Err()
			}
			return 0, errRetry
		}
	}
	if err := in.CaughtUp(ctx); err != nil {
		return 0, err
	}
	return in.Machine.Revision(), nil
}
