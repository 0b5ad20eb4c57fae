package state

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/hashicorp/raft"

	"github.com/podman-swarm/podman-swarm/internal/state/call"
	"github.com/podman-swarm/podman-swarm/internal/state/engine"
	"github.com/podman-swarm/podman-swarm/internal/state/machine"
	"github.com/podman-swarm/podman-swarm/internal/state/space"
)

// leaderWait is how long a call waits for somebody to lead before it gives up with ErrNoLeader. A
// failover takes about a second.
const leaderWait = 10 * time.Second

// errRetry says that a write certainly did not happen and may be tried again.
var errRetry = call.ErrRetry

// Apply makes one mutation and returns when it is committed and applied on this replica.
//
// ErrConflict comes with Result.Current. A deletion of a key that does not exist is a conflict.
// ErrNoSpace: nothing happened. ErrNoLeader or a context error: the write may happen yet, unless
// the error says otherwise.
func (s *Store) Apply(ctx context.Context, w Write) (Result, error) {
	if err := call.Mutation(w).Validate(); err != nil {
		return Result{}, err
	}
	var res Result
	err := s.atLeader(ctx, s.space.Check, func(ctx context.Context, in *engine.Engine) (err error) {
		res, err = s.propose(ctx, in, w)
		return err
	}, func(ctx context.Context, in *engine.Engine, leader string) (err error) {
		res, err = s.forward(ctx, in, leader, w)
		return err
	})
	return res, err
}

// atLeader calls here when this replica leads, there when another does, and again after errRetry
// and changes of leadership. When nobody leads, hopeless says why: an only replica need not
// wait then.
func (s *Store) atLeader(ctx context.Context, hopeless func() error, here func(context.Context, *engine.Engine) error,
	there func(ctx context.Context, in *engine.Engine, leader string) error,
) error {
	timer := time.NewTimer(leaderWait)
	defer timer.Stop()
	why := "" // nothing reached the one that was thought to lead
	for {
		if s.gone.Load() {
			return ErrClosed
		}
		in := s.instance()
		changed := in.Change()
		err := errRetry
		if in.Leads() {
			err = here(ctx, in)
		} else if addr, ok := s.leader(in); ok {
			err = there(ctx, in, addr)
		} else if why := hopeless(); why != nil && in.Alone() {
			return why
		}
		if !errors.Is(err, errRetry) {
			return err
		}
		if errors.Is(err, ErrUnsent) {
			why = fmt.Sprintf(" (%v)", err)
		}
		// The look again is for signals that Raft dropped.
		again := time.NewTimer(engine.Heartbeat / 2)
		select {
		case <-changed:
		case <-again.C:
		case <-ctx.Done():
			err = ctx.Err()
		case <-s.ctx.Done():
			err = ErrClosed
		case <-timer.C:
			if err = hopeless(); err == nil {
				err = fmt.Errorf("%w for %v, nothing was written%s", ErrNoLeader, leaderWait, why)
			}
		}
		again.Stop()
		if !errors.Is(err, errRetry) {
			return err
		}
	}
}

// propose puts the write into the log of this replica, which leads.
func (s *Store) propose(ctx context.Context, in *engine.Engine, w Write) (Result, error) {
	if err := s.room(ctx, in); err != nil {
		return Result{}, err
	}
	if !in.Begin() {
		return Result{}, errRetry
	}
	defer in.Landed()
	return s.commit(ctx, in, s.encode(in.Machine, w))
}

// commit puts an entry into the log and returns what became of it.
func (s *Store) commit(ctx context.Context, in *engine.Engine, entry []byte) (Result, error) {
	var f raft.ApplyFuture
	err := in.Await(ctx, func() raft.Future {
		f = in.Raft.Apply(entry, leaderWait)
		return f
	})
	if err != nil {
		return Result{}, s.translate(err)
	}
	out := f.Response().(*machine.Outcome) // by its contract
	return out.Result, out.Err
}

// hopeful is for what writes nothing: it waits for a leader, also where the disk is full.
func hopeful() error { return nil }

// encode makes the log entry of a write: here the leader's clock decides, and nowhere else.
func (s *Store) encode(m *machine.Machine, w Write) []byte {
	c := machine.Command{Stamp: m.Stamp(), Expect: w.Expect, Key: w.Key, Value: w.Value}
	if w.Delete {
		c.Delete, c.Value = true, nil
	} else if w.TTL > 0 {
		c.Expires = s.cfg.Lab.Now().Unix() + w.TTL
	}
	return c.Encode()
}

// translate turns Raft's errors into this package's.
func (s *Store) translate(err error) error {
	switch {
	case errors.Is(err, raft.ErrNotLeader), errors.Is(err, raft.ErrEnqueueTimeout),
		errors.Is(err, raft.ErrLeadershipTransferInProgress):
		return errRetry
	case errors.Is(err, raft.ErrLeadershipLost):
		return fmt.Errorf("%w: leadership was lost, the write may have happened", ErrNoLeader)
	case errors.Is(err, raft.ErrRaftShutdown):
		if s.ctx.Err() != nil {
			return ErrClosed
		}
		return fmt.Errorf("%w: restarting, the write may have happened", ErrNoLeader)
	case space.Is(err):
		return fmt.Errorf("%w: %w", ErrNoSpace, err)
	}
	return err
}
