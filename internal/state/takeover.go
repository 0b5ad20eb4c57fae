package state

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/hashicorp/raft"

	"github.com/podman-swarm/podman-swarm/internal/state/call"
	"github.com/podman-swarm/podman-swarm/internal/state/engine"
	"github.com/podman-swarm/podman-swarm/internal/state/home"
	"github.com/podman-swarm/podman-swarm/internal/state/lineage"
)

// askTimeout bounds how long a peer may take to say how far its log reaches.
const askTimeout = time.Second

// takeOver goes on without the majority, if no other survivor knows more: this replica begins a
// lineage with all that is in its log, alone; the others join it.
func (s *Store) takeOver(in *engine.Engine, v lineage.View) (acted bool, err error) {
	if err := in.Machine.Stuck(); err != nil {
		return false, fmt.Errorf("take over: %w", err) // there is more, which it cannot read
	}
	if ahead, err := s.ahead(in, v.Peers); err != nil || !ahead {
		return false, err
	}
	s.log.Warn("most of the voters are gone: this replica goes on without them", "lineage", in.Lineage(),
		"voters", v.Voters, "revision", in.Machine.Revision())
	began := time.Now()
	s.hangUp(in)
	next, err := s.fork(in)
	if err != nil {
		s.restart(in)
		return true, fmt.Errorf("take over: %w", err)
	}
	if err := in.Stop(); err != nil {
		s.log.Debug("close the former lineage", "err", err)
	}
	s.replaced(in, next)
	s.show(next)
	s.log.Warn("a new lineage has begun", "lineage", next.Lineage(), "after", time.Since(began), "revision", next.Machine.Revision())
	return true, nil
}

// fork begins a lineage from a replica whose Raft has ended.
func (s *Store) fork(in *engine.Engine) (*engine.Engine, error) {
	m := newMachine(s.cfg, in.Lineage())
	if err := in.Stores.Whole(in.Machine, m); err != nil {
		return nil, err
	}
	next, err := fork(s.cfg, m, in.Machine.Point())
	if err != nil {
		return nil, err
	}
	_, index, err := in.Stores.Last()
	if err != nil {
		return nil, err
	}
	s.at("fork")
	st, err := s.home.Begin(next, func(st home.Stores) error { return st.Fill(m, index, self(s.cfg, next)) })
	if err != nil {
		return nil, err
	}
	s.at("forked")
	out, err := s.runIn(st, m)
	if err != nil {
		return nil, errors.Join(err, st.Close())
	}
	return out, nil
}

// ahead asks the other survivors of the lineage and reports whether this replica is to take over.
// Who does not answer does not count: should it take over too, the two are merged. Who says that it
// follows another lineage has taken over a moment ago, which gossip is about to tell. A replica that is
// not the one knows as soon as one says so: until the silent have had their time it would see nothing else.
func (s *Store) ahead(in *engine.Engine, peers []Peer) (bool, error) {
	term, index, err := in.Stores.Last()
	if err != nil {
		return false, fmt.Errorf("take over: %w", err)
	}
	ctx, cancel := context.WithTimeout(s.ctx, askTimeout)
	defer cancel()
	self := lineage.Position{Name: s.cfg.NodeID, Term: term, Index: index}
	var wg sync.WaitGroup
	var behind atomic.Bool
	for _, p := range slices.Clone(peers) {
		if p.Name == s.cfg.NodeID || p.Standing.Lineage != in.Lineage() {
			continue
		}
		wg.Go(func() {
			r, err := s.reach(ctx, p.Addr, in.Lineage())
			other := lineage.Position{Name: p.Name, Term: r.Term, Index: r.Index}
			if errors.Is(err, errRetry) || err == nil && r.Eligible && !lineage.Ahead(self, []lineage.Position{other}) {
				behind.Store(true)
				cancel()
			}
		})
	}
	wg.Wait()
	return !behind.Load(), s.ctx.Err()
}

// reach asks a peer how far its log reaches.
func (s *Store) reach(ctx context.Context, addr, of string) (call.Reach, error) {
	a, err := s.call(ctx, addr, call.Request{Kind: call.Position, Lineage: of})
	if err != nil {
		return call.Reach{}, err
	}
	return call.DecodeReach(a.Body)
}

// reachOf asks the replica of a name, wherever it is now.
func (s *Store) reachOf(ctx context.Context, in *engine.Engine, id raft.ServerID) (call.Reach, error) {
	ctx, cancel := context.WithTimeout(ctx, askTimeout)
	defer cancel()
	addr, ok := s.where(string(id))
	if !ok {
		return call.Reach{}, errRetry
	}
	return s.reach(ctx, addr, in.Lineage())
}
