package gossip

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

func TestMetadataSpreads(t *testing.T) {
	for _, n := range []int{2, 5, 50} {
		t.Run(fmt.Sprint(n), func(t *testing.T) {
			inCluster(t, n, 0.02, func(c *cluster) {
				t := c.t
				var sum, worst time.Duration
				const rounds = 20
				for i := range rounds {
					from := i % n
					want := bytes.Repeat([]byte{byte(i)}, 200)
					if err := c.all[from].SetMeta(want); err != nil {
						t.Fatal(err)
					}
					took := c.within(1500*time.Millisecond, "everyone knows the metadata", func() bool {
						return c.each(func(x *node) bool { return bytes.Equal(x.member(nodeName(from)).Meta, want) })
					})
					sum, worst = sum+took, max(worst, took)
					pause(2 * time.Second)
				}
				t.Logf("%d members: metadata is everywhere after %v on average, %v at worst", n, sum/rounds, worst)
			})
		})
	}
}

// TestMetadataInQuickSuccession changes it far more often than it may be spread: the last one wins,
// and the network does not notice.
func TestMetadataInQuickSuccession(t *testing.T) {
	inCluster(t, 5, 0.02, func(c *cluster) {
		t := c.t
		c.net.Traffic()
		var last []byte
		for i := range 1000 {
			last = []byte(fmt.Sprint(i))
			if err := c.all[0].SetMeta(last); err != nil {
				t.Fatal(err)
			}
			pause(2 * time.Millisecond)
		}
		c.within(1500*time.Millisecond, "everyone knows the last one", func() bool {
			return c.each(func(x *node) bool { return bytes.Equal(x.member(nodeName(0)).Meta, last) })
		})
		if packets, _ := c.net.Traffic(); packets > 1500 {
			t.Errorf("%d packets for 1000 changes in 2 s", packets)
		}
		if err := c.all[0].SetMeta(make([]byte, MaxMeta+1)); err == nil {
			t.Error("too much metadata is accepted")
		}
	})
}

func TestLeave(t *testing.T) {
	for _, n := range []int{2, 5, 50} {
		t.Run(fmt.Sprint(n), func(t *testing.T) {
			inCluster(t, n, 0.02, func(c *cluster) {
				t := c.t
				last := n - 1
				leaver := c.all[last]
				start := time.Now()
				if err := leaver.Leave(t.Context()); err != nil {
					t.Fatal(err)
				}
				said := time.Since(start)
				// As a rule at once; who misses the rumour learns of it by comparing views.
				c.within(5*time.Second, "everyone knows that it has left", func() bool {
					return c.each(func(x *node) bool { return x.member(nodeName(last)).State == Left })
				})
				t.Logf("%d members: leaving takes %v, known to all after %v", n, said, time.Since(start))
				leaver.end()
				c.all[last] = nil
				if err := leaver.Leave(t.Context()); err == nil {
					t.Error("left after Close")
				}

				// It is not sought, forgotten when told to, and may come back.
				pause(time.Minute)
				c.all[0].Forget(nodeName(last))
				if got := len(c.all[0].Members()); got != n-1 {
					t.Errorf("%d members are remembered after Forget", got)
				}
				c.start(last, address(last))
				c.join(last, 0)
				c.within(2*time.Second, "it is back", func() bool { return c.agree(n) })
			})
		})
	}
}

// TestLeaveAndReturn comes back before memberlist has forgotten the member that left.
func TestLeaveAndReturn(t *testing.T) {
	inCluster(t, 3, 0, func(c *cluster) {
		t := c.t
		if err := c.all[2].Leave(t.Context()); err != nil {
			t.Fatal(err)
		}
		c.all[2].end()
		c.start(2, address(2))
		c.join(2, 0)
		c.within(2*time.Second, "it is back", func() bool { return c.agree(3) })
		// And its death is a death, not a leave.
		c.kill(2)
		c.within(5*time.Second, "it is dead", func() bool {
			return c.each(func(x *node) bool { return x.member(nodeName(2)).State == Dead })
		})
		c.all = c.all[:2]
	})
}

// TestReturnElsewhere kills a member, which comes back at another address: after its death is known,
// and before.
func TestReturnElsewhere(t *testing.T) {
	for name, known := range map[string]bool{"after its death is known": true, "at once": false} {
		t.Run(name, func(t *testing.T) {
			inCluster(t, 5, 0.02, func(c *cluster) {
				t := c.t
				c.all[4].host.Unplug(true)
				old := c.all[4]
				go old.end()
				c.all[4] = nil
				if known {
					c.within(5*time.Second, "it is dead", func() bool {
						return c.each(func(x *node) bool { return x.member(nodeName(4)).State == Dead })
					})
				}
				since := c.all[0].member(nodeName(4)).Since
				elsewhere := "10.9.9.9:7946"
				c.start(4, elsewhere)
				err := c.all[4].Join(t.Context(), []string{address(0), address(1)})
				if known && err != nil {
					t.Fatal(err)
				}
				if !known && !errors.Is(err, ErrNameTaken) {
					t.Fatalf("join while the old one is thought alive: %v", err)
				}
				c.within(10*time.Second, "it is known at its new address", func() bool {
					return c.each(func(x *node) bool {
						m := x.member(nodeName(4))
						return m.State == Alive && m.Addr == elsewhere
					})
				})
				if !c.all[0].member(nodeName(4)).Since.After(since) {
					t.Error("it is not alive since its return")
				}
				pause(30 * time.Second)
				if !c.agree(5) {
					t.Error("it did not last")
				}
			})
		})
	}
}

// TestNameTaken starts a second member with the name of one that lives on.
func TestNameTaken(t *testing.T) {
	inCluster(t, 3, 0, func(c *cluster) {
		t := c.t
		twin, err := c.open(2, "10.9.9.9:7946", key(1))
		if err != nil {
			t.Fatal(err)
		}
		err = twin.Join(t.Context(), []string{address(0)})
		if !errors.Is(err, ErrNameTaken) || !strings.Contains(err.Error(), address(2)) {
			t.Errorf("join: %v", err)
		}
		twin.end()
		pause(30 * time.Second)
		if m := c.all[0].member(nodeName(2)); m.State != Alive || m.Addr != address(2) {
			t.Errorf("the first bearer of the name is %v at %s", m.State, m.Addr)
		}
	})
}

// TestRestart ends all members at once, and starts them with nothing but addresses known from before.
func TestRestart(t *testing.T) {
	inCluster(t, 5, 0.02, func(c *cluster) {
		var known []string
		for i := range c.all {
			known = append(known, address(i))
			c.kill(i)
		}
		for i := range c.all {
			c.start(i, address(i)).peers = known
		}
		c.within(8*time.Second, "all see all", func() bool { return c.agree(5) })
	})
}

func TestJoinErrors(t *testing.T) {
	inCluster(t, 2, 0, func(c *cluster) {
		t := c.t
		const silent = "10.7.7.7:7946"
		c.net.Plug(t.Context(), "off", silent, nil).Unplug(true)
		for _, tt := range []struct {
			name  string
			addrs []string
			want  string
		}{
			{"nobody", nil, "no address"},
			{"only itself", []string{address(0)}, "no address"},
			{"no address", []string{"here"}, "missing port"},
			{"unspecified", []string{"0.0.0.0:7946"}, "nobody can be reached"},
			{"silent", []string{silent}, "none of 1 addresses answered"},
			{"refused", []string{"10.7.7.8:7946"}, "none of 1 addresses answered"},
		} {
			err := c.all[0].Join(t.Context(), tt.addrs)
			if err == nil || !strings.Contains(err.Error(), tt.want) || strings.Contains(err.Error(), "\n") {
				t.Errorf("%s: %v, want %q on one line", tt.name, err, tt.want)
			}
		}
		ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
		defer cancel()
		start := time.Now()
		if err := c.all[0].Join(ctx, []string{silent}); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("join in too short a time: %v", err)
		}
		if took := time.Since(start); took > 200*time.Millisecond {
			t.Errorf("join took %v of 100 ms", took)
		}
	})
}

// TestChanged takes the channel before it looks, as one must, while members change: it never sleeps
// over a change.
func TestChanged(t *testing.T) {
	inCluster(t, 3, 0, func(c *cluster) {
		t := c.t
		if _, err := c.all[0].Changed(), c.all[0].SetMeta([]byte("one")); err != nil {
			t.Fatal(err)
		}
		done := make(chan struct{})
		go func() {
			defer close(done)
			for {
				changed := c.all[1].Changed()
				if string(c.all[1].member(nodeName(0)).Meta) == "last" {
					return
				}
				<-changed
			}
		}()
		for i := range 20 {
			if err := c.all[0].SetMeta([]byte{byte(i)}); err != nil {
				t.Fatal(err)
			}
			pause(announceEvery)
		}
		if err := c.all[0].SetMeta([]byte("last")); err != nil {
			t.Fatal(err)
		}
		select {
		case <-done:
		case <-time.After(time.Second):
			t.Error("the last change was slept over")
		}
		synctest.Wait()
	})
}

// TestMembersAreCopies changes what Members returns.
func TestMembersAreCopies(t *testing.T) {
	inCluster(t, 2, 0, func(c *cluster) {
		t := c.t
		c.all[0].Members()[1].Meta[0] = '!'
		if got := string(c.all[0].Members()[1].Meta); got != "new" {
			t.Errorf("metadata is %q", got)
		}
		c.all[0].Forget(nodeName(1))
		if got := len(c.all[0].Members()); got != 2 {
			t.Errorf("Forget forgot a living member")
		}
	})
}
