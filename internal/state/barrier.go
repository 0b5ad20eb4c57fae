package state

import (
	"context"
	"errors"
	"time"

	"github.com/podman-swarm/podman-swarm/internal/state/engine"
	"github.com/podman-swarm/podman-swarm/internal/state/machine"
)

const (
	// barrierTimeout bounds one round.
	barrierTimeout = leaderWait
	// askAgain is after which time a replica that still lags reminds the leader of it.
	askAgain = 100 * time.Millisecond
)

// Barrier waits until this replica's memory holds every write that was acknowledged anywhere
// before the call: a read after it is linearizable. ErrNoLeader when nobody can vouch for that.
func (s *Store) Barrier(ctx context.Context) error {
	if s.ctx.Err() != nil {
		return ErrClosed
	}
	if in := s.instance(); in.Alone() && in.Machine == s.machine() {
		// No other replica can have acknowledged anything, and Open applied all there was: true
		// also while this one does not lead, because the disk is full.
		if err := in.CaughtUp(ctx); !errors.Is(err, machine.ErrRetired) {
			return err
		}
	}
	rev, err := s.barrier.Wait(ctx)
	for err == nil {
		waiting, cancel := context.WithTimeout(ctx, askAgain)
		err = s.WaitRevision(waiting, rev)
		cancel()
		if !errors.Is(err, context.DeadlineExceeded) || ctx.Err() != nil {
			return err
		}
		if s.gone.Load() {
			return ErrClosed
		}
		// The leader hears with the question how far this replica knows, and tells it more.
		_, err = s.barrier.Wait(ctx)
	}
	return err
}

// barrierRound asks the leader for a revision that no acknowledged write is beyond.
func (s *Store) barrierRound() (rev uint64, err error) {
	ctx, cancel := context.WithTimeout(s.ctx, barrierTimeout)
	defer cancel()
	err = s.atLeader(ctx, hopeful, func(ctx context.Context, in *engine.Engine) (err error) {
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
		if err := in.Confirm(ctx); err != nil {
			if ctx.Err() != nil {
				return 0, ctx.Err()
			}
			return 0, errRetry
		}
	}
	if err := in.CaughtUp(ctx); errors.Is(err, machine.ErrRetired) {
		return 0, errRetry // this replica follows another lineage now
	} else if err != nil {
		return 0, err
	}
	return in.Machine.Revision(), nil
}
