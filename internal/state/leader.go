package state

import (
	"context"
	"errors"
	"math"
	"time"

	"github.com/hashicorp/raft"

	"github.com/podman-swarm/podman-swarm/internal/state/engine"
)

// lead does what only the leader does: it proposes the deletion of expired keys.
func (s *Store) lead() {
	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		in := s.instance()
		changed := in.Change()
		wait := time.Duration(math.MaxInt64)
		if in.Leads() {
			wait = s.expire(in)
		} else if err := in.Unfit(); err != nil {
			wait = time.Second
			in.Yield(s.ctx, wait, s.fit(in, err))
		}
		timer.Reset(wait)
		select {
		case <-timer.C:
		case <-changed:
		case <-in.Machine.Sooner():
		case <-s.ctx.Done():
			return
		}
	}
}

// yieldEvery bounds how often leadership goes round between disks that are nearly full.
const yieldEvery = time.Minute

// room makes sure that the leader's disk has room. When it has none while another voter's has, that one is
// to lead: one full disk of many stops no writes.
func (s *Store) room(ctx context.Context, in *engine.Engine) error {
	err := s.space.Check()
	if err != nil && in.Yield(ctx, yieldEvery, s.fit(in, err)) {
		return errRetry
	}
	return err
}

// fit tells of voters whether they could lead where this replica cannot.
func (s *Store) fit(in *engine.Engine, why error) func(context.Context, raft.ServerID) bool {
	return func(ctx context.Context, id raft.ServerID) bool {
		r, err := s.reachOf(ctx, in, id)
		if err != nil || !r.Eligible || r.Full && errors.Is(why, ErrNoSpace) {
			return false
		}
		s.log.Warn("this replica cannot lead and hands over", "to", id, "why", why)
		return true
	}
}

// expireBatch is how many deletions are proposed at once.
const expireBatch = 256

// expire proposes the deletion of what is due, each only if the key was not written since, and
// returns how long nothing else will be.
func (s *Store) expire(in *engine.Engine) time.Duration {
	for s.ctx.Err() == nil {
		now := s.cfg.Lab.Now()
		due, next := in.Machine.Due(now.Unix(), expireBatch)
		if len(due) == 0 {
			if next == 0 {
				return math.MaxInt64
			}
			return max(time.Unix(next, 0).Sub(now), 10*time.Millisecond)
		}
		err := in.Await(s.ctx, func() raft.Future {
			futures := make(engine.All, len(due))
			for i, e := range due {
				futures[i] = in.Raft.Apply(s.encode(in.Machine, Write{Key: e.Key, Delete: true, Expect: e.ModRevision}), leaderWait)
			}
			return futures
		})
		if err != nil {
			s.log.Debug("expiry waits", "err", err)
			return time.Second
		}
		in.Tell()
	}
	return math.MaxInt64
}
