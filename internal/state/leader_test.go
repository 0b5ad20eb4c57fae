package state

import (
	"context"
	"errors"
	"fmt"
	"math"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/hashicorp/raft"

	"github.com/podman-swarm/podman-swarm/internal/state/machine"
	"github.com/podman-swarm/podman-swarm/internal/state/raftnet"
)

// A leader hands over to one that is cut off at that moment, loses its office, and is elected again while
// the call to that one still hangs: it serves.
func TestALeaderAgainServesWhileItsHandOverHangs(t *testing.T) {
	elected := 0
	for range 30 {
		simulate(t, false, func(c *sim) {
			c.first(3)
			l := c.leader()
			in := c.nodes[name(l)].get().instance()
			c.net.Cut(func(string, string) bool { return true })
			go func() { _ = in.HandOver(context.Background()) }()
			elapse(800 * time.Millisecond)
			lost := in.Raft.State() != raft.Leader
			c.net.Split(name((l + 2) % 3))
			other := c.nodes[name((l+1)%3)].get().instance()
			c.within(10*time.Second, "an election", func() bool {
				return in.Raft.State() == raft.Leader || other.Raft.State() == raft.Leader
			})
			if lost && in.Raft.State() == raft.Leader {
				elected++
				c.write(l, "/x", "y", 15*time.Second)
			}
			c.net.Cut(nil)
			c.steady(3)
		})
		if elected == 3 {
			return
		}
	}
	if elected == 0 {
		t.Error("no leader was elected again")
	}
}

// An agent that ends while it leads, its machine living, refuses connections at once. Writes and reads through the others
// wait for the next leader; only what was under way may be in doubt.
func TestNobodyHearsOfALeaderThatRefuses(t *testing.T) {
	simulate(t, false, func(c *sim) {
		c.first(3)
		l := c.leader()
		c.net.Kill(name(l))
		for _, n := range c.running() {
			if n.name == name(l) {
				continue
			}
			ctx, cancel := context.WithTimeout(c.t.Context(), leaderWait)
			if err := c.apply(ctx, n.get(), "/through/"+n.name, "x"); err != nil {
				c.t.Errorf("write through %s: %v", n.name, err)
			}
			if err := n.get().Barrier(ctx); err != nil {
				c.t.Errorf("read through %s: %v", n.name, err)
			}
			cancel()
		}
	})
}

// A leader that stops in good order, or hands over, leaves no write in doubt, also where other voters are slow: each
// succeeds the first time.
func TestHandOverLeavesNoDoubt(t *testing.T) {
	simulate(t, false, func(c *sim) {
		c.first(5)
		for round := range 10 {
			l := c.leader()
			heir := (l + 1) % 5
			begin := c.nodes[name(l)].get().Revision()
			ctx, cancel := context.WithCancel(c.t.Context())
			var writers sync.WaitGroup
			for i := range 16 {
				s := c.nodes[name((l+i%2)%5)].get()
				writers.Go(func() {
					for k := 0; ctx.Err() == nil; k++ {
						if err := c.apply(c.t.Context(), s, fmt.Sprintf("/%d/%d", i, k%10), fmt.Sprint(round, k)); err != nil {
							c.t.Errorf("round %d: write %d/%d, %s led: %v", round, i, k, name(l), err)
							return
						}
					}
				})
			}
			elapse(50 * time.Millisecond)
			// Three voters of five hear nothing from the leader for a while: no write is committed, and the heir has all.
			c.net.Cut(func(a, b string) bool {
				return a == name(l) && b != name(heir) || b == name(l) && a != name(heir)
			})
			elapse(20 * time.Millisecond)
			time.AfterFunc(150*time.Millisecond, func() { c.net.Cut(nil) })
			if err := c.nodes[name(l)].get().HandOver(c.t.Context()); err != nil {
				c.t.Error(err)
			}
			elapse(50 * time.Millisecond)
			cancel()
			writers.Wait()
			if now := c.leader(); now == l {
				c.t.Errorf("round %d: %s leads still", round, name(l))
			}
			if c.nodes[name(l)].get().Revision() == begin {
				c.t.Errorf("round %d: nothing was written", round)
			}
		}
	})
}

// Nobody is elected, because most are gone and the others may not go on without them: the error says what was tried.
func TestWhyNothingWasWritten(t *testing.T) {
	simulate(t, false, func(c *sim) {
		c.freeze = true
		c.first(3)
		l := c.leader()
		c.net.Kill(name(l))
		c.net.Kill(name((l + 1) % 3))
		err := c.try(c.t.Context(), (l+2)%3, "/x", "y")
		if !errors.Is(err, ErrNoLeader) || errors.Is(err, errRetry) || !strings.Contains(err.Error(), "nothing was written (") {
			c.t.Errorf("err = %v", err)
		}
	})
}

// stick lets a replica's state machine stop, as at an entry that a newer version wrote.
func (c *sim) stick(i int) {
	m := c.nodes[name(i)].get().instance().Machine
	entry := (&machine.Command{Key: "/newer", Expect: Any}).Encode()
	entry[0] = math.MaxUint8
	m.ApplyBatch([]*raft.Log{{Index: m.Applied() + 1, Type: raft.LogCommand, Data: entry}})
}

// A replica that cannot read the log does not lead: it leaves that to one that can, if there is one.
func TestWhoCannotReadTheLogDoesNotLead(t *testing.T) {
	simulate(t, false, func(c *sim) {
		c.first(3)
		c.load(20, 0, 1, 2)
		l := c.leader()
		c.stick((l + 1) % 3)
		to := c.nodes[name((l+1)%3)].get()
		give := func(from *Store) {
			in := from.instance()
			err := in.Await(c.t.Context(), func() raft.Future {
				return in.Raft.LeadershipTransferToServer(to.instance().Self, raftnet.Address(to.cfg.Addr, string(to.instance().Self)))
			})
			if err != nil {
				c.t.Fatal(err)
			}
		}
		give(c.nodes[name(l)].get())
		c.within(5*time.Second, "another leads", func() bool {
			_, id := to.instance().Raft.LeaderWithID()
			return id != "" && id != to.instance().Self
		})
		if st := to.Status(); st.Stuck == nil || st.Leads {
			c.t.Errorf("status %+v", st)
		}
		c.write(c.leader(), "/after", "x", 5*time.Second)
		l = c.leader()
		for i := range 3 {
			if i != l {
				c.stick(i)
			}
		}
		c.stick(l)
		give(c.nodes[name(l)].get())
		elapse(time.Second)
		term := to.instance().Raft.CurrentTerm()
		elapse(10 * time.Minute)
		if now := to.instance().Raft.CurrentTerm(); now != term {
			c.t.Errorf("none can lead, and there were %d elections", now-term)
		}
	})
}

// The leader's disk is nearly full, another's is not: that one is to lead, and no write fails.
func TestLeaderWithoutRoomLeavesItToOneThatHasSome(t *testing.T) {
	simulate(t, true, func(c *sim) {
		c.first(3)
		c.load(20, 0, 1, 2)
		l := c.leader()
		for _, i := range []int{l, (l + 1) % 3} {
			c.nodes[name(i)].get().space.Min = math.MaxUint64
		}
		if err := c.try(c.t.Context(), l, "/through/the/old/leader", "x"); err != nil {
			c.t.Error(err)
		}
		if got, want := c.leader(), (l+2)%3; got != want {
			c.t.Errorf("n%d leads, n%d has room", got, want)
		}
		c.load(20, 0, 1, 2)
		// When all are full, leading goes round no more.
		s := c.nodes[name((l+2)%3)].get()
		s.space.Min = math.MaxUint64
		term := s.instance().Raft.CurrentTerm()
		for range 600 {
			if _, err := s.Apply(c.t.Context(), Write{Key: "/full", Expect: Any}); !errors.Is(err, ErrNoSpace) {
				c.t.Fatalf("all disks are full: %v, want ErrNoSpace", err)
			}
			elapse(time.Second)
		}
		if now := s.instance().Raft.CurrentTerm(); now != term {
			c.t.Errorf("%d elections", now-term)
		}
		for i := range 3 {
			c.nodes[name(i)].get().space.Min = 1
		}
		elapse(time.Second)
		c.load(3, 0, 1, 2)
		c.equal()
	})
}
