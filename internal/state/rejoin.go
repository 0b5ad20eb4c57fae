package state

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/podman-swarm/podman-swarm/internal/state/ancestry"
	"github.com/podman-swarm/podman-swarm/internal/state/call"
	"github.com/podman-swarm/podman-swarm/internal/state/disk"
	"github.com/podman-swarm/podman-swarm/internal/state/engine"
	"github.com/podman-swarm/podman-swarm/internal/state/home"
	"github.com/podman-swarm/podman-swarm/internal/state/lineage"
	"github.com/podman-swarm/podman-swarm/internal/state/machine"
)

const (
	// turnTimeout is how long a replica waits for its turn to hand over before it looks again.
	turnTimeout = 30 * time.Second
	// handOverTimeout bounds the time without any progress of a hand-over.
	handOverTimeout = 15 * time.Second
	handOverChunk   = 512 << 10
	retryEvery      = 200 * time.Millisecond
)

// rejoin hands over what the winner does not have and follows it with an empty replica. What this
// replica holds stays on disk, and is what is read, until the other has caught up.
func (s *Store) rejoin(in *engine.Engine, v lineage.Verdict) (acted bool, err error) {
	defer func() {
		if err != nil {
			err = fmt.Errorf("join lineage %s, which %s leads: %w", v.Winner, v.Leader.Name, err)
		}
	}()
	next := disk.Current{Lineage: v.Winner, Server: newServer(s.cfg)}
	if _, index, err := in.Stores.Last(); err != nil {
		return false, err
	} else if index == 0 { // it never held anything
		s.hangUp(in)
		return true, s.move(in, next)
	}
	winner, err := s.meet(in, v.Winner)
	if err != nil {
		return false, err
	}
	s.log.Warn("this replica joins another lineage", "lineage", in.Lineage(), "joins", v.Winner, "leader", v.Leader.Name)
	s.hangUp(in)
	reach, err := s.handOver(in, winner, in.Stores.Whole)
	if err != nil {
		s.restart(in)
		return true, err
	}
	s.at("handed over")
	next.Former = &disk.Former{Lineage: in.Lineage(), Server: string(in.Self), Reach: reach}
	return true, s.move(in, next)
}

// move replaces an instance, which has ended, by one on empty stores in another lineage.
func (s *Store) move(in *engine.Engine, next disk.Current) error {
	st, err := s.home.Begin(next, func(home.Stores) error { return nil })
	if err != nil {
		s.restart(in)
		return err
	}
	s.at("moved")
	if err := in.Stop(); err != nil {
		s.log.Debug("close the former lineage", "err", err)
	}
	to, err := s.runIn(st, newMachine(s.cfg, next.Lineage))
	if err != nil {
		if err := st.Close(); err != nil {
			s.log.Debug("close the new lineage", "err", err)
		}
		s.restart(in)
		return err
	}
	s.replaced(in, to)
	if !to.Moving() {
		s.show(to)
	}
	return nil
}

// retreat goes back to the lineage that this replica came from: the new one has gone before this
// replica had all of it.
func (s *Store) retreat(in *engine.Engine) (bool, error) {
	cur := in.Stores.Current
	s.log.Warn("the lineage that this replica was joining is gone, it goes back", "lineage", in.Lineage(), "back", cur.Former.Lineage)
	if err := errors.Join(in.Leave(), in.Stop()); err != nil {
		s.log.Debug("stop raft", "err", err)
	}
	err := s.home.Retreat(cur)
	s.restart(in)
	return true, err
}

// meet asks for this replica's turn to hand over, and returns the lineage of the winner, a related one.
func (s *Store) meet(in *engine.Engine, to string) (machine.Lineage, error) {
	ctx, cancel := context.WithTimeout(s.ctx, turnTimeout)
	defer cancel()
	body := call.AppendName(nil, string(in.Self))
	a, err := s.callLeader(ctx, call.Request{Kind: call.Meet, Lineage: to, Body: in.Machine.Lineage().Append(body)})
	if err != nil {
		return machine.Lineage{}, err
	}
	winner, err := ancestry.DecodeLineage(a.Body)
	if _, ok := ancestry.Since(winner, in.Machine.Lineage()); err == nil && !ok {
		err = machine.ErrUnrelated
	}
	return winner, err
}

// handOver sends everything that a lineage does not have to its leader, and returns the revision at
// which it has all of it. Doing it again does no harm.
func (s *Store) handOver(in *engine.Engine, to machine.Lineage, whole func(of, into *machine.Machine) error) (reach uint64, err error) {
	settled := in.Machine.Point()
	m := newMachine(s.cfg, in.Lineage())
	if err := whole(in.Machine, m); err != nil {
		return 0, err
	}
	since, _ := ancestry.Since(to, m.Lineage()) // they are related
	s.at("hand over")
	changes := m.Changes(since)
	changes.Handing = s.cfg.Handing
	for last := false; !last; {
		part := machine.Merge{To: to.ID, From: changes.Lineage, Newest: changes.Newest.Revision, Settled: settled}
		part.Chunk, last = changes.Next(handOverChunk)
		part.Final = last
		ctx, cancel := context.WithTimeout(s.ctx, handOverTimeout)
		a, err := s.callLeader(ctx, call.Request{
			Kind: call.Merge, Lineage: to.ID, Body: append(call.AppendName(nil, string(in.Self)), part.Encode()...),
		})
		cancel()
		if err != nil {
			return 0, fmt.Errorf("hand over changes: %w", err)
		}
		reach = a.Revision
		s.at("chunk")
	}
	return reach, nil
}

// callLeader asks the leader of another lineage until it answers or ctx ends.
func (s *Store) callLeader(ctx context.Context, q call.Request) (call.Answer, error) {
	err := fmt.Errorf("%w of lineage %s", ErrNoLeader, q.Lineage)
	for {
		if p, ok := s.leaderOf(q.Lineage); ok {
			var a call.Answer
			if a, err = s.call(ctx, p.Addr, q); err == nil {
				return a, nil
			}
			if !errors.Is(err, errRetry) && !errors.Is(err, ErrNoLeader) {
				return a, err
			}
		}
		timer := time.NewTimer(retryEvery)
		select {
		case <-timer.C:
		case <-ctx.Done():
			timer.Stop()
			return call.Answer{}, fmt.Errorf("%w: %w", ctx.Err(), err)
		}
	}
}
