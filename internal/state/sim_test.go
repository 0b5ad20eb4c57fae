package state

import (
	"context"
	"fmt"
	"log/slog"
	"maps"
	"os"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/hashicorp/raft"

	"github.com/podman-swarm/podman-swarm/internal/state/disk"
	"github.com/podman-swarm/podman-swarm/internal/state/lab"
	"github.com/podman-swarm/podman-swarm/internal/state/statetest"
)

// sim is a cluster in virtual time.
type sim struct {
	t      *testing.T
	net    *statetest.Net
	disk   bool
	freeze bool
	tune   func(*raft.Config)
	log    *slog.Logger
	step   map[string]func(step string) // by name
	probe  disk.Probe                   // of what starts from now on
	nodes  map[string]*simNode

	mu    sync.Mutex
	acked map[string]string // key to value
	keys  int
}

type simNode struct {
	name  string
	dir   string
	mu    sync.Mutex
	store *Store
	seen  uint64 // newest revision that a client read here
	stop  chan struct{}
	done  chan struct{}
}

func (n *simNode) get() *Store {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.store
}

// elapse lets virtual time pass.
func elapse(d time.Duration) { <-time.After(d) }

// simulate runs a test in virtual time and checks at its end that nothing acknowledged is missing.
func simulate(t *testing.T, disk bool, run func(c *sim)) {
	t.Helper()
	base := ""
	if disk {
		base = t.TempDir()
	}
	synctest.Test(t, func(t *testing.T) {
		c := &sim{
			t: t, net: statetest.New(), disk: disk, nodes: map[string]*simNode{}, acked: map[string]string{}, log: quiet(),
			step: map[string]func(string){},
		}
		if os.Getenv("PSW_TEST_LOG") != "" {
			c.log = slog.New(slog.NewTextHandler(os.Stderr, &slog.HandlerOptions{Level: slog.LevelInfo}))
		}
		for i := range 9 {
			c.nodes[name(i)] = &simNode{name: name(i), dir: base}
			if disk {
				c.nodes[name(i)].dir = fmt.Sprint(base, "/", name(i))
			}
		}
		defer c.stop()
		run(c)
	})
}

// start opens a node's replica; the watcher checks that what a client reads never goes back.
func (c *sim) start(i int, join string) *Store {
	c.t.Helper()
	s, err := c.tryStart(i, join)
	if err != nil {
		c.t.Fatal(err)
	}
	return s
}

// restart brings a killed node back: from its disk, or, where there is none, as one that joins.
func (c *sim) restart(i int) *Store {
	c.t.Helper()
	if c.disk {
		return c.start(i, "")
	}
	c.nodes[name(i)].seen = 0
	return c.start(i, c.running()[0].get().Status().Lineage.ID)
}

func (c *sim) tryStart(i int, join string) (*Store, error) {
	n := c.nodes[name(i)]
	node := c.net.Start(context.WithoutCancel(c.t.Context()), n.name, func(ctx context.Context, request []byte) []byte {
		if s := n.get(); s != nil {
			return s.Serve(ctx, request)
		}
		return nil
	})
	cfg := Config{
		Dir: n.dir, NodeID: n.name, Addr: statetest.Addr(n.name), Network: node, Membership: node, Join: join,
		Log: c.log.With("node", n.name), MinFree: 1, tune: c.tune, Freeze: c.freeze,
		Lab: lab.Lab{Segment: 16 << 10, Step: c.step[n.name], Disk: c.probe},
	}
	s, err := Open(c.t.Context(), cfg)
	if err != nil {
		return nil, err
	}
	n.mu.Lock()
	n.store, n.stop, n.done = s, make(chan struct{}), make(chan struct{})
	n.mu.Unlock()
	go c.follow(n, s)
	return s, nil
}

// follow is a client that looks at a replica, once it is ready, again and again.
func (c *sim) follow(n *simNode, s *Store) {
	defer close(n.done)
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	go func() {
		<-n.stop
		cancel()
	}()
	if s.Ready(ctx) != nil {
		return
	}
	for ctx.Err() == nil {
		v := s.View()
		if v.Revision() < n.seen {
			c.t.Errorf("%s: revision %d after %d", n.name, v.Revision(), n.seen)
		}
		n.seen = v.Revision()
		w, err := s.Watch(v.Revision())
		if err != nil {
			continue
		}
		for err == nil {
			var upTo uint64
			if _, upTo, err = w.Next(ctx, nil); upTo < n.seen {
				c.t.Errorf("%s: a watch is at %d after %d", n.name, upTo, n.seen)
			}
			n.seen = upTo
		}
		w.Close()
		pause(ctx, time.Millisecond)
	}
}

// kill ends a node without a word to anybody.
func (c *sim) kill(i int) {
	c.t.Helper()
	n := c.nodes[name(i)]
	c.net.Kill(n.name)
	s := n.get()
	n.mu.Lock()
	n.store = nil
	n.mu.Unlock()
	close(n.stop)
	if err := s.Close(); err != nil {
		c.t.Errorf("close %s: %v", n.name, err)
	}
	<-n.done
}

func (c *sim) stop() {
	for i := range len(c.nodes) {
		if c.nodes[name(i)].get() != nil {
			c.kill(i)
		}
	}
	elapse(time.Minute) // what the network still does
}

// first makes a cluster of n nodes, one after another.
func (c *sim) first(n int) {
	c.t.Helper()
	s := c.start(0, "")
	for i := 1; i < n; i++ {
		c.start(i, s.Status().Lineage.ID)
	}
	c.steady(n)
}

func (c *sim) running() []*simNode {
	var out []*simNode
	for _, k := range slices.Sorted(maps.Keys(c.nodes)) {
		if c.nodes[k].get() != nil {
			out = append(out, c.nodes[k])
		}
	}
	return out
}

// within polls in virtual time.
func (c *sim) within(d time.Duration, what string, ok func() bool) time.Duration {
	c.t.Helper()
	for start := time.Now(); ; elapse(10 * time.Millisecond) {
		if ok() {
			return time.Since(start)
		}
		if time.Since(start) > d {
			for _, n := range c.running() {
				c.t.Logf("%s: %+v", n.name, n.get().Status())
			}
			c.t.Fatalf("after %v still not: %s", d, what)
		}
	}
}

// steady waits until n replicas follow one leader in one lineage and as many as should vote.
func (c *sim) steady(n int) time.Duration {
	c.t.Helper()
	want := min(n, 5)
	return c.within(40*time.Second, fmt.Sprintf("%d replicas in one lineage", n), func() bool {
		leaders, lineages := 0, map[string]bool{}
		for _, x := range c.running() {
			st := x.get().Status()
			votes := 0
			for _, r := range st.Replicas {
				if r.Votes {
					votes++
				}
			}
			if st.Leads {
				leaders++
				if len(st.Replicas) < n || votes != want && (want != 4 || votes != 3) {
					return false
				}
			}
			if st.Joining || st.Leader == "" {
				return false
			}
			lineages[st.Lineage.ID] = true
		}
		return leaders == 1 && len(lineages) == 1
	})
}

// write writes through a node until it is acknowledged and returns how long that took.
func (c *sim) write(i int, key, value string, limit time.Duration) time.Duration {
	c.t.Helper()
	start := time.Now()
	ctx, cancel := context.WithTimeout(c.t.Context(), limit)
	defer cancel()
	for {
		if err := c.try(ctx, i, key, value); err == nil {
			return time.Since(start)
		} else if ctx.Err() != nil {
			for _, n := range c.running() {
				c.t.Logf("%s: %+v", n.name, n.get().Status())
			}
			c.t.Fatalf("%s: write %s: not acknowledged within %v: %v", name(i), key, limit, err)
		}
		pause(ctx, 10*time.Millisecond)
	}
}

func (c *sim) try(ctx context.Context, i int, key, value string) error {
	return c.apply(ctx, c.nodes[name(i)].get(), key, value)
}

func (c *sim) apply(ctx context.Context, s *Store, key, value string) error {
	_, err := s.Apply(ctx, Write{Key: key, Value: []byte(value), Expect: Any})
	if err == nil {
		c.mu.Lock()
		defer c.mu.Unlock()
		c.acked[key] = value
	}
	return err
}

// load writes n fresh keys through nodes in turn.
func (c *sim) load(n int, through ...int) {
	c.t.Helper()
	for k := range n {
		c.keys++
		c.write(through[k%len(through)], fmt.Sprintf("/k/%04d", c.keys), fmt.Sprint("v", c.keys), 15*time.Second)
	}
}

// equal waits until all replicas hold the same, byte for byte, and all that was acknowledged.
func (c *sim) equal() {
	c.t.Helper()
	var top uint64
	for _, n := range c.running() {
		if err := n.get().Barrier(c.t.Context()); err != nil {
			c.t.Fatalf("%s: %v", n.name, err)
		}
		top = max(top, n.get().Revision())
	}
	var want []Entry
	for _, n := range c.running() {
		if err := n.get().WaitRevision(c.t.Context(), top); err != nil {
			c.t.Fatal(err)
		}
		got := listView(n.get().View(), "", "")
		if want == nil {
			want = got
		}
		if diff := cmp.Diff(want, got, emptyIsNil); diff != "" {
			c.t.Fatalf("%s differs: %s", n.name, diff)
		}
	}
	have := map[string]string{}
	for _, e := range want {
		have[e.Key] = string(e.Value)
	}
	for k, v := range c.acked {
		if have[k] != v {
			c.t.Errorf("%s is %q, acknowledged was %q", k, have[k], v)
		}
	}
}

func TestJoinUpToSeven(t *testing.T) {
	simulate(t, false, func(c *sim) {
		s := c.start(0, "")
		c.load(20, 0)
		for n := 2; n <= 7; n++ {
			c.start(n-1, s.Status().Lineage.ID)
			t.Logf("%d nodes after %v", n, c.steady(n))
			c.load(5, n-1)
		}
		c.equal()
	})
}

func TestLoseOneByOne(t *testing.T) {
	for _, leader := range []bool{false, true} {
		simulate(t, false, func(c *sim) {
			c.first(5)
			c.load(20, 0, 1, 2, 3, 4)
			for left := 4; left >= 1; left-- {
				victim := -1
				for i := range 5 {
					if s := c.nodes[name(i)].get(); s != nil && s.instance().Leads() == leader {
						victim = i
					}
				}
				c.kill(victim)
				survivor := slices.IndexFunc([]int{0, 1, 2, 3, 4}, func(i int) bool { return c.nodes[name(i)].get() != nil })
				took := c.write(survivor, fmt.Sprint("/left/", left), "x", 12*time.Second)
				t.Logf("%d left: written after %v, steady after %v more", left, took, c.steady(left))
				if left > 1 && took > 4*time.Second {
					t.Errorf("%d left: %v until the next write", left, took)
				}
			}
			c.equal()
		})
	}
}
