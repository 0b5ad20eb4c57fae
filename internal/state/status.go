package state

import (
	"context"
	"errors"
	"fmt"

	"github.com/hashicorp/raft"

	"github.com/podman-swarm/podman-swarm/internal/state/call"
	"github.com/podman-swarm/podman-swarm/internal/state/engine"
	"github.com/podman-swarm/podman-swarm/internal/state/raftnet"
)

// Leads reports whether this replica leads. The channel closes at the next change.
func (s *Store) Leads() (bool, <-chan struct{}) {
	in := s.instance()
	changed := in.Change()
	return in.Leads(), changed
}

// Ready waits until this replica's memory is the present: it has heard from a leader, or leads. An
// old replica that returns must not act on what it remembers.
func (s *Store) Ready(ctx context.Context) error {
	for !s.present.Load() {
		switch err := s.Barrier(ctx); {
		case err == nil:
			s.present.Store(true)
			return nil
		case ctx.Err() != nil:
			return ctx.Err()
		case errors.Is(err, ErrClosed):
			return err
		case !errors.Is(err, ErrNoLeader):
			s.log.Debug("not ready yet", "err", err)
		}
		s.pause(retryEvery) // some errors come at once
	}
	return nil
}

// Status is what there is to know of a replica.
type Status struct {
	Lineage Lineage
	Server  string // this replica's name in it
	Leads   bool
	Leader  string // the leader's name; empty: nobody leads
	// Joining says that what is read is of another lineage until this replica has caught up.
	Joining bool
	// Stuck is why nothing is applied here any more: there is an entry that a newer version wrote.
	Stuck       error
	Revision    uint64
	Term, Index uint64
	Replicas    []Replica
}

// Replica is a member of the configuration.
type Replica struct {
	Server, Addr string
	Votes        bool
}

// Status looks at this replica.
func (s *Store) Status() Status {
	in := s.instance()
	_, leader := in.Raft.LeaderWithID()
	out := Status{
		Lineage: in.Machine.Lineage(), Server: string(in.Self), Leads: in.Leads(), Leader: string(leader),
		Joining: in.Moving() || in.Machine != s.machine(), Revision: s.Revision(), Term: in.Raft.CurrentTerm(), Index: in.Raft.LastIndex(),
	}
	out.Stuck = in.Machine.Stuck()
	out.Lineage.ID = in.Lineage() // also before this replica has heard of it from others
	for _, m := range in.Members().Servers {
		addr, _ := raftnet.Split(m.Address)
		out.Replicas = append(out.Replicas, Replica{Server: string(m.ID), Addr: addr, Votes: m.Suffrage == raft.Voter})
	}
	return out
}

// HandOver gives leadership away, as before a planned stop: that takes milliseconds, an election a
// second. Who does not lead, or has nobody to give it to, has nothing to do.
func (s *Store) HandOver(ctx context.Context) error {
	if err := s.instance().HandOver(ctx); err != nil {
		return fmt.Errorf("hand over leadership: %w", err)
	}
	return nil
}

// Leave takes this replica out of the configuration, for good: it follows nobody after that. The
// store can still be read, and is to be closed.
func (s *Store) Leave(ctx context.Context) error {
	if in := s.instance(); in.Alone() {
		return fmt.Errorf("leave: %w", ErrOnlyReplica)
	}
	s.leaving.Store(true)
	if s.cfg.Membership != nil {
		s.tell(s.instance())
	}
	err := s.atLeader(ctx, hopeful, func(ctx context.Context, in *engine.Engine) error {
		if in.Alone() {
			return ErrOnlyReplica
		}
		return errors.Join(s.HandOver(ctx), errRetry)
	}, func(ctx context.Context, in *engine.Engine, leader string) error {
		_, err := s.call(ctx, leader, call.Request{Kind: call.Leave, Lineage: in.Lineage(), Body: []byte(in.Self)})
		if errors.Is(err, ErrUnsent) {
			err = call.Unsent(err)
		}
		return err
	})
	if err != nil {
		s.leaving.Store(false)
		s.instance().Broadcast() // so that the peers are told
		return fmt.Errorf("leave: %w", err)
	}
	s.gone.Store(true)
	return nil
}
