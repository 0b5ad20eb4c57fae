package state

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"time"

	"github.com/podman-swarm/podman-swarm/internal/state/lineage"
	"github.com/podman-swarm/podman-swarm/internal/state/machine"
	"github.com/podman-swarm/podman-swarm/internal/state/raftnet"
)

// keep is the only goroutine that replaces the running instance: when the log failed, when this
// replica takes over, moves to another lineage, or arrives there.
func (s *Store) keep() {
	var judge lineage.Judge
	var told Standing
	var quiet time.Time // until then nothing is tried again
	timer := time.NewTimer(0)
	defer timer.Stop()
	for s.ctx.Err() == nil {
		in := s.instance()
		changed, peers := in.change(), s.peersChanged()
		if s.cfg.Membership != nil {
			if now := s.standing(in); now != told {
				told = now
				s.cfg.Membership.Tell(now)
			}
			verdict, v := s.verdict(in, &judge)
			wait := cmp.Or(verdict.Again, never)
			if left := time.Until(quiet); left > 0 {
				wait = min(wait, left)
			} else if verdict.Do != lineage.Stay {
				acted, err := s.act(in, verdict, v)
				if err != nil && s.ctx.Err() == nil {
					s.log.Warn("this replica stays in its lineage for now", "lineage", in.lineage(), "err", err)
					// Others may be at the same thing with the same result: not in step.
					quiet = time.Now().Add(time.Second + rand.N(time.Second))
				}
				if acted || err != nil {
					continue
				}
			}
			timer.Reset(wait)
		}
		select {
		case <-in.stores.broken():
			s.log.Error("the log failed, Raft is started again", "err", in.stores.disk.Log.Failed())
			s.restart(in)
		case <-in.arrived:
			s.arrive(in)
		case <-changed:
		case <-peers:
		case <-timer.C:
		case <-s.ctx.Done():
		}
	}
}

// peersChanged closes when other replicas come, go or change; never without a network.
func (s *Store) peersChanged() <-chan struct{} {
	if s.cfg.Membership == nil {
		return nil
	}
	return s.cfg.Membership.Changed()
}

func (s *Store) peers() []Peer {
	if s.cfg.Membership == nil {
		return nil
	}
	return s.cfg.Membership.Peers()
}

// standing is what peers are told of this replica. How far the log reaches concerns them while
// nobody leads; then it stands still.
func (s *Store) standing(in *instance) Standing {
	if s.leaving.Load() {
		return Standing{}
	}
	out := Standing{Server: string(in.self), Lineage: in.lineage(), Born: in.fsm.Lineage().Born, Leader: in.leads()}
	if !in.led() {
		out.Term, out.Index, _ = in.stores.last() // 0 when it cannot be read
	}
	return out
}

// never is how long to wait for nothing.
const never = time.Hour

// verdict asks what is to be done.
func (s *Store) verdict(in *instance, j *lineage.Judge) (lineage.Verdict, lineage.View) {
	v := lineage.View{
		Self:  Peer{Name: s.cfg.NodeID, Addr: s.cfg.Addr, Standing: s.standing(in)},
		Peers: s.peers(), Voters: in.voters(), Member: in.member(), Led: in.led(), Moving: in.moving(), Freeze: s.cfg.Freeze,
	}
	if s.leaving.Load() {
		return lineage.Verdict{}, v
	}
	return j.Decide(v, time.Now()), v
}

// act does what is to be done.
func (s *Store) act(in *instance, verdict lineage.Verdict, v lineage.View) (acted bool, err error) {
	switch verdict.Do {
	case lineage.TakeOver:
		return s.takeOver(in, v)
	case lineage.Rejoin:
		return s.rejoin(in, verdict)
	case lineage.Retreat:
		return s.retreat(in)
	case lineage.Stay:
	}
	return false, nil
}

// where says where a server is now.
func (s *Store) where(server string) (string, bool) {
	for _, p := range s.peers() {
		if p.Standing.Server == server {
			return p.Addr, true
		}
	}
	return "", false
}

// leader returns the address of another replica that leads this instance's lineage.
func (s *Store) leader(in *instance) (addr string, ok bool) {
	if s.cfg.Network == nil {
		return "", false
	}
	to, id := in.r.LeaderWithID()
	if id == in.self {
		return "", false
	}
	if id != "" {
		if addr, ok := s.where(string(id)); ok {
			return addr, true
		}
		addr, _ := raftnet.Split(to)
		return addr, true
	}
	p, ok := s.leaderOf(in.lineage())
	return p.Addr, ok
}

// leaderOf is the peer that says that it leads a lineage.
func (s *Store) leaderOf(id string) (Peer, bool) {
	for _, p := range s.peers() {
		if p.Standing.Leader && p.Standing.Lineage == id && p.Name != s.cfg.NodeID {
			return p, true
		}
	}
	return Peer{}, false
}

const restartEvery = 2 * time.Second

// restart replaces an instance that ended by another on what is followed now, as soon as the disk
// lets it.
func (s *Store) restart(old *instance) {
	if err := old.stop(); err != nil {
		s.log.Debug("stop raft", "err", err)
	}
	for s.ctx.Err() == nil {
		in, err := s.again(old)
		if err == nil {
			s.replaced(old, in)
			return
		}
		s.log.Error("Raft cannot be started again, writes are refused", "err", err)
		s.pause(restartEvery)
	}
}

// again runs Raft on what is followed now: with the old machine, so that reads notice nothing, if
// that is what it was.
func (s *Store) again(old *instance) (in *instance, err error) {
	st, err := s.home.open()
	if err != nil {
		return nil, err
	}
	if st.cur.Lineage != old.lineage() {
		in, err = s.start(st)
	} else if old.left {
		in, err = s.runIn(st, old.fsm)
	} else {
		in, err = s.run(st, old.fsm, old.trans)
	}
	if err != nil {
		return nil, errors.Join(err, st.close())
	}
	return in, nil
}

// runIn runs Raft with a transport of its own.
func (s *Store) runIn(st stores, m *machine.Machine) (*instance, error) {
	trans, err := s.transport(st.cur)
	if err != nil {
		return nil, err
	}
	in, err := s.run(st, m, trans)
	if err != nil {
		return nil, errors.Join(err, trans.End())
	}
	return in, nil
}

func (s *Store) pause(d time.Duration) {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-s.ctx.Done():
	}
}

// replaced makes another instance the one that runs.
func (s *Store) replaced(old, in *instance) {
	s.raft.Store(in)
	old.broadcast() // whoever waits on the old one looks again
}

// arrive makes the instance's machine, which has caught up, the one that is read.
func (s *Store) arrive(in *instance) {
	if in.moving() {
		s.at("arriving")
		if err := s.home.settle(in.stores.cur); err != nil {
			s.log.Error("the former lineage cannot be removed yet", "err", err)
			s.pause(restartEvery)
			return
		}
		s.at("arrived")
		s.log.Info("this replica has caught up with the lineage that it joined", "lineage", in.lineage())
	}
	in.arrived = nil
	in.move.Store(false)
	s.show(in)
	in.broadcast()
}

// show makes the instance's machine the one that is read.
func (s *Store) show(in *instance) {
	if old := s.shown.Swap(in.fsm); old != in.fsm {
		old.Retire()
	}
}

// at tells tests where this replica is.
func (s *Store) at(step string) {
	if s.cfg.step != nil {
		s.cfg.step(step)
	}
}

// replace sets a damaged replica aside and begins an empty one, if peers hold the state.
func (s *Store) replace(ctx context.Context, damaged error) (stores, error) {
	ctx, cancel := context.WithTimeout(ctx, peersTimeout)
	defer cancel()
	for {
		changed := s.peersChanged()
		p, ok := lineage.Best(s.peers(), s.cfg.NodeID)
		if ok {
			aside, err := s.home.root.SetAside(time.Now())
			if err != nil {
				return stores{}, errors.Join(damaged, fmt.Errorf("set the damaged state aside: %w", err))
			}
			s.log.Warn("this node's copy of the state is damaged; it was set aside, and a new one is made from the other nodes'",
				"aside", aside, "err", damaged)
			return s.found(p.Standing.Lineage)
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return stores{}, damaged
		}
	}
}

// peersTimeout is how long a damaged replica looks for peers that hold the state.
const peersTimeout = 10 * time.Second
