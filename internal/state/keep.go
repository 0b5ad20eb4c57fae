package state

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"time"

	"github.com/podman-swarm/podman-swarm/internal/state/disk"
	"github.com/podman-swarm/podman-swarm/internal/state/engine"
	"github.com/podman-swarm/podman-swarm/internal/state/home"
	"github.com/podman-swarm/podman-swarm/internal/state/lineage"
	"github.com/podman-swarm/podman-swarm/internal/state/machine"
	"github.com/podman-swarm/podman-swarm/internal/state/raftnet"
)

// keep is the only goroutine that replaces the running instance: when the log failed, when this
// replica takes over, moves to another lineage, or arrives there.
func (s *Store) keep() {
	var judge lineage.Judge
	var quiet time.Time // until then nothing is tried again
	timer := time.NewTimer(0)
	defer timer.Stop()
	for s.ctx.Err() == nil {
		in := s.instance()
		changed, peers := in.Change(), s.peersChanged()
		if s.cfg.Membership != nil {
			s.tell(in)
			verdict, v := s.verdict(in, &judge)
			wait := cmp.Or(verdict.Again, never)
			if left := time.Until(quiet); left > 0 {
				wait = min(wait, left)
			} else if verdict.Do != lineage.Stay {
				acted, err := s.act(in, verdict, v)
				if err != nil && s.ctx.Err() == nil {
					s.log.Warn("this replica stays in its lineage for now", "lineage", in.Lineage(), "err", err)
					// Others may be at the same thing with the same result: not in step.
					quiet = time.Now().Add(time.Second + rand.N(time.Second))
					if errors.Is(err, machine.ErrUnrelated) { // that does not pass
						quiet = quiet.Add(unrelatedPause)
					}
				}
				if acted || err != nil {
					continue
				}
			}
			timer.Reset(wait)
		}
		select {
		case <-in.Stores.Broken():
			s.log.Error("the log failed, Raft is started again", "err", in.Stores.Failure())
			s.restart(in)
		case <-in.Arrived():
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

// tell has peers told what they do not know of this replica yet.
func (s *Store) tell(in *engine.Engine) {
	s.telling.Lock()
	defer s.telling.Unlock()
	if now := s.standing(in); now != s.told {
		s.told = now
		s.cfg.Membership.Tell(now)
	}
}

// standing is what peers are told of this replica. How far the log reaches concerns them while
// nobody leads; then it stands still.
func (s *Store) standing(in *engine.Engine) Standing {
	if s.leaving.Load() || s.damaged.Load() {
		return Standing{}
	}
	out := Standing{Server: string(in.Self), Lineage: in.Lineage(), Born: in.Machine.Lineage().Born, Leader: in.Leads()}
	if !in.Led() {
		out.Term, out.Index, _ = in.Stores.Last() // 0 when it cannot be read
	}
	return out
}

// unrelatedPause is how often it is said that two lineages cannot become one.
const unrelatedPause = 5 * time.Minute

// never is how long to wait for nothing.
const never = time.Hour

// verdict asks what is to be done.
func (s *Store) verdict(in *engine.Engine, j *lineage.Judge) (lineage.Verdict, lineage.View) {
	v := lineage.View{
		Self:  Peer{Name: s.cfg.NodeID, Addr: s.cfg.Addr, Standing: s.standing(in)},
		Peers: s.peers(), Voters: in.Voters(), Member: in.Member(), Led: in.Led(), Moving: in.Moving(), Freeze: s.cfg.Freeze,
	}
	if s.leaving.Load() {
		return lineage.Verdict{}, v
	}
	return j.Decide(v, time.Now()), v
}

// act does what is to be done.
func (s *Store) act(in *engine.Engine, verdict lineage.Verdict, v lineage.View) (acted bool, err error) {
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
func (s *Store) leader(in *engine.Engine) (addr string, ok bool) {
	if s.cfg.Network == nil {
		return "", false
	}
	to, id := in.Raft.LeaderWithID()
	if id == in.Self && !in.Stalled() {
		return "", false
	}
	if id != "" && id != in.Self {
		if addr, ok := s.where(string(id)); ok {
			return addr, true
		}
		addr, _ := raftnet.Split(to)
		return addr, true
	}
	p, ok := s.leaderOf(in.Lineage())
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
// lets it. Damage does not pass: then it is by another replica, made anew.
func (s *Store) restart(old *engine.Engine) {
	if err := old.Stop(); err != nil {
		s.log.Debug("stop raft", "err", err)
	}
	for s.ctx.Err() == nil {
		in, err := s.again(old)
		if err == nil {
			s.damaged.Store(false)
			s.replaced(old, in)
			return
		}
		s.log.Error("Raft cannot be started again, writes are refused", "err", err)
		s.hangUp(old)
		s.pause(restartEvery)
	}
}

// hangUp ends the connections of an instance that ended: nobody there answers any more, so what others ask
// would wait in memory, call by call.
func (s *Store) hangUp(old *engine.Engine) {
	if old.Left() {
		return
	}
	if err := old.Leave(); err != nil {
		s.log.Debug("stop raft", "err", err)
	}
}

// again runs Raft on what is followed now: with the old machine, so that reads notice nothing, if
// that is what it was.
func (s *Store) again(old *engine.Engine) (in *engine.Engine, err error) {
	st, err := s.home.Open()
	if err != nil {
		s.hangUp(old)
		st, err = s.instead(s.ctx, err)
	}
	if err != nil {
		return nil, err
	}
	if st.Current.Lineage != old.Lineage() || st.ID() != old.Self {
		in, err = s.start(st)
	} else if old.Left() {
		in, err = s.runIn(st, old.Machine)
	} else {
		in, err = s.run(st, old.Machine, old.Trans)
	}
	if err != nil {
		return nil, errors.Join(err, st.Close())
	}
	return in, nil
}

// runIn runs Raft with a transport of its own.
func (s *Store) runIn(st home.Stores, m *machine.Machine) (*engine.Engine, error) {
	trans, err := s.transport(st.Current)
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
	ctx, cancel := context.WithTimeout(s.ctx, d)
	defer cancel()
	<-ctx.Done()
}

// replaced makes another instance the one that runs.
func (s *Store) replaced(old, in *engine.Engine) {
	s.raft.Store(in)
	old.Broadcast() // whoever waits on the old one looks again
}

// arrive makes the instance's machine, which has caught up, the one that is read.
func (s *Store) arrive(in *engine.Engine) {
	if in.Moving() {
		s.at("arriving")
		if err := s.home.Settle(in.Stores.Current); err != nil {
			s.log.Error("the former lineage cannot be removed yet", "err", err)
			s.pause(restartEvery)
			return
		}
		s.at("arrived")
		s.log.Info("this replica has caught up with the lineage that it joined", "lineage", in.Lineage())
	}
	s.show(in)
	in.Arrive()
}

// show makes the instance's machine the one that is read.
func (s *Store) show(in *engine.Engine) {
	if old := s.shown.Swap(in.Machine); old != in.Machine {
		old.Retire()
	}
}

// at tells tests where this replica is.
func (s *Store) at(step string) {
	if s.cfg.Lab.Step != nil {
		s.cfg.Lab.Step(step)
	}
}

// instead makes stores where none could be opened, if a replica is to have new ones.
func (s *Store) instead(ctx context.Context, why error) (home.Stores, error) {
	join, err := s.home.Wanted()
	switch {
	case err != nil:
		return home.Stores{}, err
	case errors.Is(why, fs.ErrNotExist) && (join != "" || s.instance() == nil):
		return s.found(cmp.Or(s.cfg.Join, join))
	case errors.As(why, new(*disk.DamageError)) && s.cfg.Network != nil:
		s.damaged.Store(true)
		s.tell(s.instance()) // who takes this replica for alive does not go on without it
		return s.replace(ctx, why)
	}
	return home.Stores{}, why
}

// replace sets a damaged replica aside and begins an empty one, if peers hold the state.
func (s *Store) replace(ctx context.Context, damaged error) (home.Stores, error) {
	ctx, cancel := context.WithTimeout(ctx, peersTimeout)
	defer cancel()
	for {
		changed := s.peersChanged()
		p, ok := lineage.Best(s.peers(), s.cfg.NodeID)
		if ok {
			if err := s.rescue(p); err != nil {
				return home.Stores{}, errors.Join(damaged, err)
			}
			aside, err := s.home.SetAside(time.Now(), p.Standing.Lineage)
			if err != nil {
				return home.Stores{}, errors.Join(damaged, fmt.Errorf("set the damaged state aside: %w", err))
			}
			s.log.Warn("this node's copy of the state is damaged; it was set aside, and a new one is made from the other nodes'",
				"aside", aside, "err", damaged)
			return s.found(p.Standing.Lineage)
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return home.Stores{}, damaged
		}
	}
}

// rescue hands over to another lineage what only the memory of a replica holds whose files are damaged: all
// that it knows to be committed. Later writes, if there are any, are on a majority of the voters.
func (s *Store) rescue(p Peer) error {
	in := s.instance()
	if in == nil || in.Lineage() == p.Standing.Lineage {
		return nil
	}
	winner, err := s.meet(in, p.Standing.Lineage)
	if err != nil {
		return err
	}
	_, err = s.handOver(in, winner, home.Copy)
	return err
}

// peersTimeout is how long a damaged replica looks for peers that hold the state.
const peersTimeout = 10 * time.Second
