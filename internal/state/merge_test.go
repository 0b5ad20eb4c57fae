package state

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/hashicorp/raft"

	"github.com/podman-swarm/podman-swarm/internal/state/machine"
)

// conflicts is how many overwritten values the journal has.
func (c *sim) conflicts(i int) int {
	return c.nodes[name(i)].get().View().Count("/swarm/conflicts/", "/swarm/conflicts0")
}

func TestTwoNodesOneDies(t *testing.T) {
	for _, leader := range []bool{true, false} {
		for _, disk := range []bool{false, true} {
			simulate(t, disk, func(c *sim) {
				c.first(2)
				c.load(20, 0, 1)
				victim := 0
				if c.nodes[name(1)].get().instance().Leads() == leader {
					victim = 1
				}
				c.kill(victim)
				t.Logf("leader died %v: survivor writes after %v", leader, c.write(1-victim, "/alone", "x", 10*time.Second))
				c.load(20, 1-victim)
				c.restart(victim)
				t.Logf("together again after %v", c.steady(2))
				c.load(5, victim)
				c.equal()
			})
		}
	}
}

func TestThreeOfFiveDieAtOnce(t *testing.T) {
	simulate(t, true, func(c *sim) {
		c.first(5)
		c.load(50, 0, 1, 2, 3, 4)
		for i := range 3 {
			c.kill(i)
		}
		t.Logf("survivors write after %v", c.write(4, "/survived", "x", 12*time.Second))
		c.steady(2)
		c.load(20, 3, 4)
		c.equal()
		for i := range 3 { // a majority of the old lineage returns
			c.restart(i)
		}
		t.Logf("all together after %v", c.steady(5))
		c.load(5, 0, 4)
		c.equal()
	})
}

// A write on its way to the leader of a lineage that is over is not waited for as long as the network lets it: in 50
// nodes gossip knows of the dead so late that a client's second try went to the dead leader too.
func TestNobodyWaitsForALeaderOfTheLineageBefore(t *testing.T) {
	simulate(t, false, func(c *sim) {
		c.net.Detect = 6 * time.Second
		c.first(5)
		c.load(5, 0, 1, 2, 3, 4)
		var two []string
		for _, n := range c.running() {
			if !n.get().instance().Leads() && len(two) < 2 {
				two = append(two, n.name)
			}
		}
		before := c.nodes[two[0]].get().Status().Lineage.ID
		c.net.Split(two...)
		elapse(5 * time.Second) // Raft has lost its leader, gossip still shows it
		s, ended := c.nodes[two[0]].get(), make(chan struct{})
		go func() {
			defer close(ended)
			_ = c.apply(c.t.Context(), s, "/late", "x") // it may have happened
		}()
		defer func() { <-ended }()
		c.within(10*time.Second, two[0]+" is in another lineage", func() bool { return s.instance().Lineage() != before })
		c.within(time.Second, "its write has an end", func() bool {
			select {
			case <-ended:
				return true
			default:
				return false
			}
		})
	})
}

// Who asks how far the others are, and is not the one to take over, does not wait for one that is silent: it would see
// that another has taken over a second later, and so join it a second later.
func TestTheSilentHoldUpNobodyElse(t *testing.T) {
	for range 8 {
		simulate(t, false, func(c *sim) {
			c.first(7)
			c.load(5, 0, 1, 2, 3, 4)
			left := []string{name(4), name(5), name(6)} // one of five voters
			before := c.nodes[left[0]].get().Status().Lineage.ID
			c.net.Split(left...)
			elapse(4500 * time.Millisecond)
			c.net.Cut(func(a, b string) bool { // of the second cut gossip does not know yet
				return slices.Contains(left, a) != slices.Contains(left, b) || a == left[1] && b == left[2]
			})
			c.within(10*time.Second, left[0]+" takes over", func() bool { return c.nodes[left[0]].get().instance().Lineage() != before })
			took := c.within(5*time.Second, left[1]+" follows", func() bool { return c.nodes[left[1]].get().instance().Lineage() != before })
			if took > 1500*time.Millisecond { // gossip, and a second of agreement
				t.Errorf("the other survivor follows after %v", took)
			}
		})
	}
}

// Both sides of a partition write; healed, both sides' work is there.
func TestPartition(t *testing.T) {
	for _, disk := range []bool{false, true} {
		simulate(t, disk, func(c *sim) {
			c.first(5)
			c.load(30, 0, 1, 2, 3, 4)
			c.write(0, "/both", "before", time.Second)
			c.net.Split(name(3), name(4))
			t.Logf("the larger side writes after %v", c.write(0, "/big", "x", 10*time.Second))
			t.Logf("the smaller side writes after %v", c.write(3, "/small", "x", 12*time.Second))
			c.write(0, "/both", "big side", 10*time.Second)
			elapse(time.Second)
			c.write(4, "/both", "small side, later", 10*time.Second)
			c.load(20, 0, 1, 2)
			c.load(20, 3, 4)
			c.net.Cut(nil)
			t.Logf("healed after %v", c.steady(5))
			c.load(5, 3)
			c.equal()
			if n := c.conflicts(0); n != 1 {
				t.Errorf("%d conflicts in the journal, want 1", n)
				for conflict, err := range machine.Conflicts(c.nodes[name(0)].get().View()) {
					t.Errorf("%+v, %v", conflict, err)
				}
			}
		})
	}
}

// Writers go on through the whole partition and its end.
func TestPartitionUnderLoad(t *testing.T) {
	simulate(t, false, func(c *sim) {
		c.first(5)
		ctx, cancel := context.WithCancel(c.t.Context())
		var wg sync.WaitGroup
		for i := range 5 {
			wg.Go(func() {
				for k := 0; ctx.Err() == nil; k++ {
					_ = c.try(ctx, i, fmt.Sprintf("/n%d/%d", i, k), fmt.Sprint(k))
					pause(ctx, 50*time.Millisecond)
				}
			})
		}
		elapse(2 * time.Second)
		c.net.Split(name(0), name(1))
		elapse(20 * time.Second)
		c.net.Cut(nil)
		c.steady(5)
		elapse(2 * time.Second)
		cancel()
		wg.Wait()
		t.Logf("%d writes were acknowledged", len(c.acked))
		c.steady(5)
		c.equal()
	})
}

// Three sides, each with a lineage of its own, see each other at once.
func TestThreeLineagesMeet(t *testing.T) {
	simulate(t, true, func(c *sim) {
		c.first(6)
		c.load(30, 0, 1, 2, 3, 4, 5)
		side := func(n string) byte { return (n[1] - '0') / 2 }
		c.net.Cut(func(a, b string) bool { return side(a) != side(b) })
		for i := range 6 {
			c.write(i, fmt.Sprint("/side/", i), "x", 15*time.Second)
		}
		c.load(30, 0, 1, 2, 3, 4, 5)
		c.net.Cut(nil)
		t.Logf("one lineage after %v", c.steady(6))
		c.load(6, 0, 1, 2, 3, 4, 5)
		c.equal()
	})
}

// A majority returns to a lineage that was taken over, with its log cut or not.
func TestReturningMajority(t *testing.T) {
	for _, cut := range []bool{false, true} {
		simulate(t, true, func(c *sim) {
			if cut {
				c.tune = func(c *raft.Config) {
					c.SnapshotThreshold, c.TrailingLogs, c.SnapshotInterval = 20, 5, 500*time.Millisecond
				}
			}
			c.first(5)
			c.load(50, 0, 1, 2, 3, 4)
			c.net.Split(name(0), name(1))
			c.load(60, 0)
			c.load(60, 4)
			elapse(5 * time.Second)
			c.net.Cut(nil)
			t.Logf("log cut %v: one lineage after %v", cut, c.steady(5))
			c.equal()
		})
	}
}

// Entries that were never committed lie at the end of a log on one of the sides.
func TestTakeoverWithATail(t *testing.T) {
	for _, onSurvivor := range []bool{true, false} {
		simulate(t, true, func(c *sim) {
			c.first(3)
			c.load(20, 0, 1, 2)
			leader := 0
			for i := range 3 {
				if c.nodes[name(i)].get().instance().Leads() {
					leader = i
				}
			}
			// The leader writes into the void, then all others die, or it does itself.
			c.net.Split(name(leader))
			ctx, cancel := context.WithTimeout(c.t.Context(), 200*time.Millisecond)
			err := c.try(ctx, leader, "/tail", "never acknowledged")
			cancel()
			if err == nil {
				t.Fatal("acknowledged without a majority")
			}
			if onSurvivor {
				c.kill((leader + 1) % 3)
				c.kill((leader + 2) % 3)
				c.write(leader, "/alone", "x", 10*time.Second)
				if got := value(c.nodes[name(leader)].get(), "/tail"); got != "never acknowledged" {
					t.Errorf("the tail of the log became %q", got)
				}
				c.net.Cut(nil)
				c.restart((leader + 1) % 3)
				c.restart((leader + 2) % 3)
			} else {
				c.load(20, (leader+1)%3)
				c.kill((leader + 2) % 3)
				elapse(time.Second)
				c.net.Cut(nil)
				c.restart((leader + 2) % 3)
			}
			c.steady(3)
			c.load(5, 0, 1, 2)
			c.equal()
		})
	}
}

// A node that was away for an hour, during which the lineage was taken over, returns.
func TestAwayForLong(t *testing.T) {
	simulate(t, true, func(c *sim) {
		c.first(3)
		c.load(10, 0, 1, 2)
		c.kill(2)
		c.load(10, 0, 1)
		elapse(time.Hour)
		c.kill(1)
		c.load(10, 0)
		c.restart(1)
		c.steady(2)
		c.load(10, 0, 1)
		s := c.restart(2)
		ctx, cancel := context.WithTimeout(c.t.Context(), 30*time.Second)
		defer cancel()
		if err := s.Ready(ctx); err != nil {
			t.Fatal(err)
		}
		t.Logf("back after %v", c.steady(3))
		c.equal()
	})
}

// The lineage that a newcomer was to join is gone when it comes: it joins what came after.
func TestJoinWhatCameAfter(t *testing.T) {
	simulate(t, false, func(c *sim) {
		s := c.start(0, "")
		c.load(10, 0)
		old := s.Status().Lineage.ID
		c.start(1, old)
		c.steady(2)
		c.load(10, 0, 1)
		c.kill(0)
		c.write(1, "/alone", "x", 10*time.Second)
		c.start(2, old)
		c.steady(2)
		c.load(10, 1, 2)
		c.equal()
	})
}

// Two stores that have nothing in common are never made one; both go on.
func TestUnrelated(t *testing.T) {
	simulate(t, false, func(c *sim) {
		c.start(0, "")
		c.start(1, "")
		c.write(0, "/a", "x", time.Second)
		c.write(1, "/b", "x", time.Second)
		elapse(time.Minute)
		c.write(0, "/a", "y", time.Second)
		c.write(1, "/b", "y", time.Second)
		for i, other := range []string{"/b", "/a"} {
			if got := value(c.nodes[name(i)].get(), other); got != "none" {
				t.Errorf("%s has %s = %q", name(i), other, got)
			}
		}
	})
}

// Whoever writes, reads and watches while a replica moves to another lineage is served, or told why
// not in words that callers know.
func TestCallersMoveOn(t *testing.T) {
	simulate(t, true, func(c *sim) {
		c.first(3)
		c.net.Split(name(2))
		c.load(10, 2)
		c.load(10, 0)
		s := c.nodes[name(2)].get()
		w, err := s.Watch(s.Revision())
		if err != nil {
			t.Fatal(err)
		}
		defer w.Close()
		ahead := make(chan error, 1)
		go func() { ahead <- s.WaitRevision(c.t.Context(), s.Revision()+1) }()
		ctx, cancel := context.WithCancel(c.t.Context())
		var wg sync.WaitGroup
		for k := range 4 {
			wg.Go(func() {
				for i := 0; ctx.Err() == nil; i++ {
					err := s.Barrier(ctx)
					if err == nil {
						err = c.try(ctx, 2, fmt.Sprintf("/m%d/%d", k, i), "x")
					}
					if err != nil && !errors.Is(err, ErrNoLeader) && ctx.Err() == nil {
						t.Errorf("caller %d: %v", k, err)
					}
					pause(ctx, time.Millisecond)
				}
			})
		}
		c.net.Cut(nil)
		c.steady(3)
		for err == nil {
			_, _, err = w.Next(c.t.Context(), nil)
		}
		if !errors.Is(err, ErrCompacted) {
			t.Errorf("the watch ends with %v", err)
		}
		if err := <-ahead; err != nil {
			t.Errorf("waiting for a later revision: %v", err)
		}
		cancel()
		wg.Wait()
		c.equal()
	})
}
