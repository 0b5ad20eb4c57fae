package state

import (
	"bytes"
	"context"
	"errors"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/podman-swarm/podman-swarm/internal/state/disk"
	"github.com/podman-swarm/podman-swarm/internal/state/lineage"
	"github.com/podman-swarm/podman-swarm/internal/state/voters"
)

func (c *sim) leader() int {
	c.t.Helper()
	found := -1
	c.within(20*time.Second, "a leader", func() bool {
		for i := range 9 {
			if s := c.nodes[name(i)].get(); s != nil {
				if leads, _ := s.Leads(); leads {
					found = i
					return true
				}
			}
		}
		return false
	})
	return found
}

// A store that was the only one, without a network, becomes the first of several.
func TestOnlyReplicaGetsANetwork(t *testing.T) {
	simulate(t, true, func(c *sim) {
		s, err := tryOpen(c.t, Config{Dir: c.nodes[name(0)].dir, NodeID: name(0)})
		if err != nil {
			t.Fatal(err)
		}
		put(c.t, s, "/before", "x")
		id := s.Status().Lineage.ID
		if err := s.Close(); err != nil {
			t.Fatal(err)
		}
		c.acked["/before"] = "x"
		s = c.start(0, "")
		if got := s.Status(); got.Lineage.ID != id || value(s, "/before") != "x" {
			t.Fatalf("came back as %+v", got)
		}
		c.start(1, id)
		c.steady(2)
		for _, r := range s.Status().Replicas {
			if !strings.HasSuffix(r.Addr, ":7946") {
				t.Errorf("replica %+v", r)
			}
		}
		c.load(10, 0, 1)
		c.equal()
		c.kill(0)
		c.restart(0)
		c.steady(2)
		c.equal()
	})
}

func TestHandOver(t *testing.T) {
	simulate(t, false, func(c *sim) {
		c.first(3)
		l := c.leader()
		s := c.nodes[name(l)].get()
		_, changed := s.Leads()
		start := time.Now()
		if err := s.HandOver(c.t.Context()); err != nil {
			t.Fatal(err)
		}
		<-changed
		c.within(time.Second, "another leader", func() bool { return c.leader() != l })
		if took := time.Since(start); took > 300*time.Millisecond {
			t.Errorf("handing over took %v", took)
		}
		if err := c.nodes[name(l)].get().HandOver(c.t.Context()); err != nil {
			t.Errorf("by one that does not lead: %v", err)
		}
	})
	simulate(t, false, func(c *sim) {
		if err := c.start(0, "").HandOver(c.t.Context()); err != nil {
			t.Errorf("to nobody: %v", err)
		}
	})
}

// A replica that left is in nobody's way and does not come back by itself.
func TestLeave(t *testing.T) {
	simulate(t, false, func(c *sim) {
		c.first(3)
		for left := 3; left > 1; left-- {
			l := c.leader()
			s := c.nodes[name(l)].get()
			if err := s.Leave(c.t.Context()); err != nil {
				t.Fatal(err)
			}
			asked := time.Now() // who stops this node waits for what it was asked
			if err := s.Barrier(c.t.Context()); !errors.Is(err, ErrClosed) {
				t.Errorf("a read: %v", err)
			}
			if _, err := s.Apply(c.t.Context(), Write{Key: "late", Expect: Any}); !errors.Is(err, ErrClosed) {
				t.Errorf("a write: %v", err)
			}
			if took := time.Since(asked); took > time.Second {
				t.Errorf("it says after %s that it has left", took)
			}
			elapse(5 * time.Second)
			for _, n := range c.running() {
				if n.get() != s && len(n.get().Status().Replicas) != left-1 {
					t.Errorf("%s: %+v", n.name, n.get().Status())
				}
			}
			elapse(30 * time.Second)
			if leads, _ := s.Leads(); leads {
				t.Error("it leads on")
			}
			c.kill(l)
			c.load(5, c.leader())
		}
		s := c.nodes[name(c.leader())].get()
		if err := s.Leave(c.t.Context()); !errors.Is(err, ErrOnlyReplica) {
			t.Errorf("the last one: %v", err)
		}
		c.load(1, c.leader())
	})
}

// Who gives up leaving goes on as a replica: whatever the leader has done by then, it takes that one back.
func TestLeaveThatIsGivenUp(t *testing.T) {
	for ms := range 6 {
		simulate(t, false, func(c *sim) {
			c.first(3)
			s := c.nodes[name((c.leader()+1)%3)].get()
			ctx, end := context.WithTimeout(c.t.Context(), time.Duration(ms+1)*time.Millisecond)
			defer end()
			if s.Leave(ctx) == nil {
				return
			}
			elapse(voters.LeftFor + 5*time.Second)
			c.steady(3)
			c.write(c.leader(), "/after", "x", 10*time.Second)
			c.equal()
		})
	}
}

// Who has left is not taken in again by what gossip still tells of it.
func TestOldGossipOfWhoLeft(t *testing.T) {
	simulate(t, false, func(c *sim) {
		c.net.Gossip = 3 * time.Second
		c.first(3)
		l := c.leader()
		if err := c.nodes[name((l+1)%3)].get().Leave(c.t.Context()); err != nil {
			c.t.Fatal(err)
		}
		for range 100 {
			if n := len(c.nodes[name(l)].get().Status().Replicas); n != 2 {
				c.t.Fatalf("%d replicas", n)
			}
			elapse(100 * time.Millisecond)
		}
	})
}

// A damaged replica is set aside and made anew from the others, under another name.
func TestDamagedReplicaRejoins(t *testing.T) {
	simulate(t, true, func(c *sim) {
		c.first(3)
		c.load(50, 0, 1, 2)
		before := c.nodes[name(2)].get().Status().Server
		dir := c.nodes[name(2)].dir
		c.kill(2)
		damageLog(t, dir)
		s := c.restart(2)
		t.Logf("whole after %v", c.steady(3))
		if s.Status().Server == before {
			t.Error("it votes under its old name")
		}
		if aside, err := filepath.Glob(dir + ".damaged-*"); err != nil || len(aside) != 1 {
			t.Errorf("set aside: %v, %v", aside, err)
		}
		c.load(5, 2)
		c.equal()
	})
	simulate(t, true, func(c *sim) {
		c.start(0, "")
		c.load(50, 0)
		c.kill(0)
		damageLog(t, c.nodes[name(0)].dir)
		if _, err := c.tryStart(0, ""); !errors.As(err, new(*disk.DamageError)) {
			t.Errorf("an only node, damaged: %v", err)
		}
	})
}

func damageLog(t *testing.T, dir string) {
	t.Helper()
	files, err := filepath.Glob(dir + "/raft/*/log/*.log")
	if err != nil || len(files) == 0 {
		t.Fatalf("no log in %s: %v", dir, err)
	}
	b, err := os.ReadFile(files[0])
	if err != nil {
		t.Fatal(err)
	}
	b[200] ^= 0xff
	if err := os.WriteFile(files[0], b, 0o600); err != nil {
		t.Fatal(err)
	}
}

func TestFreeze(t *testing.T) {
	simulate(t, false, func(c *sim) {
		c.freeze = true
		c.first(2)
		c.load(5, 0, 1)
		c.kill(1)
		before := c.nodes[name(0)].get().Status()
		elapse(5 * time.Minute)
		s := c.nodes[name(0)].get()
		if got := s.Status(); got.Lineage.ID != before.Lineage.ID || got.Leader != "" || got.Revision != before.Revision {
			t.Errorf("frozen, but %+v", got)
		}
		ctx, cancel := context.WithTimeout(c.t.Context(), time.Minute)
		defer cancel()
		if _, err := s.Apply(ctx, Write{Key: "/x"}); !errors.Is(err, ErrNoLeader) {
			t.Errorf("a write: %v", err)
		}
	})
}

func TestExport(t *testing.T) {
	s := open(t, Config{})
	for _, key := range []string{"/a", "/b", "/c"} {
		put(t, s, key, "v"+key)
	}
	if _, err := s.Apply(t.Context(), Write{Key: "/c", Delete: true, Expect: Any}); err != nil {
		t.Fatal(err)
	}
	var b bytes.Buffer
	if err := s.Export(&b); err != nil {
		t.Fatal(err)
	}
	put(t, s, "/later", "x")
	cfg := Config{Dir: t.TempDir(), NodeID: "n1", Log: quiet()}
	for i := range b.Len() {
		bad := bytes.Clone(b.Bytes())
		bad[i] ^= 1
		if err := Import(t.Context(), cfg, bytes.NewReader(bad)); err == nil {
			t.Fatalf("byte %d flipped: imported", i)
		}
		if err := Import(t.Context(), cfg, bytes.NewReader(b.Bytes()[:i])); err == nil {
			t.Fatalf("cut to %d bytes: imported", i)
		}
	}
	if err := Import(t.Context(), cfg, bytes.NewReader(b.Bytes())); err != nil {
		t.Fatal(err)
	}
	if err := Import(t.Context(), cfg, bytes.NewReader(b.Bytes())); err == nil || !strings.Contains(err.Error(), "already") {
		t.Errorf("imported over state: %v", err)
	}
	again := open(t, cfg)
	if n := again.View().Count("", ""); n != 2 || value(again, "/b") != "v/b" || again.Revision() <= s.Revision() {
		t.Errorf("%d keys at revision %d, after %d", n, again.Revision(), s.Revision())
	}
	was, is := s.Status().Lineage, again.Status().Lineage
	if is.ID == was.ID || len(is.Parents) != 1 || is.Parents[0].ID != was.ID {
		t.Errorf("lineage %+v of %+v", is, was)
	}
	put(t, again, "/on", "it goes")
}

// A quiet cluster tells its peers nothing.
func TestIdleIsSilent(t *testing.T) {
	simulate(t, false, func(c *sim) {
		c.first(4)
		c.load(20, 0, 1, 2, 3)
		elapse(20 * time.Second)
		var tells atomic.Int64
		c.net.Heard = func(string, lineage.Standing) { tells.Add(1) }
		elapse(10 * time.Minute)
		c.load(100, 0, 1, 2, 3)
		if n := tells.Load(); n != 0 {
			t.Errorf("%d times told in ten quiet minutes", n)
		}
	})
}

// Leadership goes around a hundred times and leaves nothing behind.
func TestLeadershipLeaksNothing(t *testing.T) {
	simulate(t, false, func(c *sim) {
		c.first(3)
		count := func() int {
			elapse(30 * time.Second)
			return runtime.NumGoroutine()
		}
		before, rounds := 0, 0
		for i := range 100 {
			if i == 10 {
				before = count()
			}
			s := c.nodes[name(c.leader())].get()
			_, changed := s.Leads()
			if err := s.HandOver(c.t.Context()); err == nil {
				<-changed
				rounds++
			}
			c.leader()
			if i%10 == 0 {
				c.net.Reset()
			}
			c.load(1, i%3)
		}
		if rounds < 90 {
			t.Errorf("leadership went around %d times only", rounds)
		}
		if after := count(); after > before+5 {
			buf := make([]byte, 1<<20)
			t.Errorf("%d goroutines, %d before:\n%s", after, before, buf[:runtime.Stack(buf, true)])
		}
		c.equal()
	})
}
