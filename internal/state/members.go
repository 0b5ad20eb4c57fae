package state

import (
	"math"
	"time"

	"github.com/hashicorp/raft"

	"github.com/podman-swarm/podman-swarm/internal/state/engine"
	"github.com/podman-swarm/podman-swarm/internal/state/raftnet"
	"github.com/podman-swarm/podman-swarm/internal/state/voters"
)

// enrol keeps the configuration of Raft in line with who is alive, while this replica leads. It is
// the only goroutine that changes it.
func (s *Store) enrol() {
	if s.cfg.Membership == nil {
		return
	}
	missing := map[raft.ServerID]time.Time{}
	timer := time.NewTimer(0)
	defer timer.Stop()
	for s.ctx.Err() == nil {
		in := s.instance()
		changed, peers := in.Change(), s.peersChanged()
		wait := never
		if in.Leads() {
			var change *voters.Change
			if change, wait = s.plan(in, &missing); change != nil {
				err := in.Await(s.ctx, func() raft.Future { return change.Begin(in.Raft) })
				if err == nil {
					s.log.Info("replica changed", "change", string(change.Op), "server", string(change.ID))
					continue
				}
				s.log.Debug("change of replicas waits", "change", string(change.Op), "server", string(change.ID), "err", err)
				wait = time.Second
			} else if wait == 0 {
				wait = never
			}
		} else {
			clear(missing) // what this replica saw before it leads says nothing about later
		}
		timer.Reset(wait)
		select {
		case <-changed:
		case <-peers:
		case <-timer.C:
		case <-s.ctx.Done():
		}
	}
}

// plan asks for the next change.
func (s *Store) plan(in *engine.Engine, missing *map[raft.ServerID]time.Time) (*voters.Change, time.Duration) {
	now := time.Now()
	own := raft.Server{ID: in.Self, Address: raftnet.Address(s.cfg.Addr, string(in.Self))}
	alive := []raft.Server{own}
	s.mu.Lock()
	again := s.left.Forget(now, func(id raft.ServerID) bool {
		_, told := s.where(string(id))
		return told
	})
	for _, p := range s.peers() {
		id := raft.ServerID(p.Standing.Server)
		if _, left := s.left[id]; p.Name != s.cfg.NodeID && p.Standing.Lineage == in.Lineage() && !left && id != "" {
			alive = append(alive, raft.Server{ID: id, Address: raftnet.Address(p.Addr, string(id))})
		}
	}
	s.mu.Unlock()
	conf := in.Members()
	*missing = voters.Missing(*missing, conf, alive, now)
	change, wait := voters.Plan(voters.View{
		Config: conf, Self: own, Alive: alive, Missing: *missing,
		Lag: func(id raft.ServerID) (uint64, bool) { return s.lag(in, id) },
	}, voters.Default(), now)
	if wait == 0 || again > 0 && again < wait {
		wait = again
	}
	return change, wait
}

// lag asks a replica how far it is behind; false: it is not ready for a vote.
func (s *Store) lag(in *engine.Engine, id raft.ServerID) (uint64, bool) {
	r, err := s.reachOf(s.ctx, in, id)
	if err != nil || !r.Eligible {
		return math.MaxUint64, false
	}
	last := in.Raft.LastIndex()
	return last - min(r.Index, last), true
}
