package sim

import (
	"context"
	"fmt"
	"log/slog"
	"maps"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/podman-swarm/podman-swarm/internal/gossip"
	"github.com/podman-swarm/podman-swarm/internal/simnet"
	"github.com/podman-swarm/podman-swarm/internal/state"
)

// cluster is a number of nodes and what is remembered about them.
type cluster struct {
	t       *testing.T
	log     *slog.Logger
	rnd     *rand.Rand
	net     *simnet.Net
	base    string
	compact uint64 // entries of the log before a snapshot takes their place; 0: the usual
	freeze  bool
	nodes   []*node
	hist    *history
	began   time.Time
	graves  sync.WaitGroup
	loads   []*clients

	mu     sync.Mutex
	count  int
	places map[string]map[string]bool // nodes on which a pod runs that must not run twice
	wrong  map[string]bool            // nodes that were fenced while they lived
	traps  map[string]string          // by rack: the step at which the first machine to get there loses power
}

// scratch is a directory that is fast where there is memory for it.
func scratch(t *testing.T) string {
	t.Helper()
	const shm = "/dev/shm"
	if info, err := os.Stat(shm); err == nil && info.IsDir() {
		if dir, err := os.MkdirTemp(shm, "sim-"); err == nil { //nolint:usetesting // not where the test would have it
			t.Cleanup(func() { _ = os.RemoveAll(dir) })
			return dir
		}
	}
	return t.TempDir()
}

// simulate runs a story in virtual time, and judges its history afterwards.
func simulate(t *testing.T, seed uint64, story func(c *cluster)) {
	t.Helper()
	base, hist := scratch(t), newHistory()
	synctest.Test(t, func(t *testing.T) {
		rnd := rand.New(rand.NewPCG(seed, 1))
		c := &cluster{
			t: t, rnd: rnd, net: simnet.New(rand.New(rand.NewPCG(seed, 2)), simnet.Quality{Delay: 500 * time.Microsecond}), base: base, hist: hist, began: time.Now(),
			log: logger(), places: map[string]map[string]bool{}, wrong: map[string]bool{}, traps: map[string]string{},
		}
		defer c.close()
		story(c)
	})
	hist.judge(t)
}

// logger is silent unless SWARM_SIM_LOG is set.
func logger() *slog.Logger {
	if os.Getenv("SWARM_SIM_LOG") == "" {
		return slog.New(slog.DiscardHandler)
	}
	return slog.New(slog.NewTextHandler(os.Stderr, &slog.HandlerOptions{Level: slog.LevelInfo}))
}

// say tells what happens, for whom a test fails.
func (c *cluster) say(format string, args ...any) {
	text := fmt.Sprintf(format, args...)
	c.t.Logf("%9.3fs %s", time.Since(c.began).Seconds(), text)
	c.log.Info("story", "at", time.Since(c.began).Seconds(), "text", text)
}

// add makes a node that joins the cluster; the first one begins it.
func (c *cluster) add(name, rack string) *node {
	c.t.Helper()
	i := len(c.nodes) + 1
	n := &node{c: c, name: name, rack: rack, addr: fmt.Sprintf("10.0.0.%d:7946", i)}
	n.pods.uid = map[string]string{}
	n.drive = newDrive(c.t, rand.New(rand.NewPCG(c.rnd.Uint64(), 3)), filepath.Join(c.base, n.name))
	if i > 1 {
		through := c.up()[0]
		n.lineage, n.met = through.store().Status().Lineage.ID, []string{through.addr}
	}
	c.nodes = append(c.nodes, n)
	if err := n.boot(); err != nil {
		c.t.Fatalf("boot %s: %v", n.name, err)
	}
	return n
}

// up are the nodes that run.
func (c *cluster) up() []*node {
	var out []*node
	for _, n := range c.nodes {
		if n.store() != nil {
			out = append(out, n)
		}
	}
	return out
}

// leader is the node that leads, nil when not exactly one does.
func (c *cluster) leader() *node {
	var found []*node
	for _, n := range c.up() {
		if leads, _ := n.store().Leads(); leads {
			found = append(found, n)
		}
	}
	if len(found) != 1 {
		return nil
	}
	return found[0]
}

func (c *cluster) close() {
	for _, x := range c.loads {
		x.end()
	}
	for _, n := range c.nodes {
		if n.life() != nil {
			_ = n.stop(true) // it runs
		}
	}
	c.graves.Wait()
	for _, n := range c.nodes {
		n.drive.forget()
	}
	elapse(time.Minute) // what the network still does
}

// bury ends a life that is over, in its own time.
func (c *cluster) bury(l *life) { c.graves.Go(l.close) }

// elapse lets virtual time pass.
func elapse(d time.Duration) { <-time.After(d) }

// fresh is a name that was never used.
func (c *cluster) fresh(what string) string {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.count++
	return fmt.Sprint(what, c.count)
}

// at is where a node's store stops to be watched.
func (c *cluster) at(n *node, step string) {
	c.mu.Lock()
	hit := c.traps[n.rack] == step
	if hit {
		delete(c.traps, n.rack)
	}
	c.mu.Unlock()
	if hit {
		c.say("%s loses power at the step %q", n.name, step)
		if err := n.stop(true); err != nil {
			c.t.Error(err)
		}
	}
}

// started notes that a pod runs on a node: never two at a time, if it must not.
func (c *cluster) started(n *node, p pod) {
	if !p.Single {
		return
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	at := c.places[p.Name]
	if at == nil {
		at = map[string]bool{}
		c.places[p.Name] = at
	}
	for other := range at {
		if other != n.name && !c.wrong[other] {
			c.t.Errorf("%.3fs: pod %s starts on %s and runs on %s still", time.Since(c.began).Seconds(), p.Name, n.name, other)
		}
	}
	at[n.name] = true
}

func (c *cluster) ended(n *node, name string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	delete(c.places[name], n.name)
}

// within waits in virtual time, and returns how long it took.
func (c *cluster) within(d time.Duration, what string, ok func() bool) time.Duration {
	c.t.Helper()
	for start := time.Now(); ; elapse(20 * time.Millisecond) {
		if ok() {
			return time.Since(start)
		}
		if time.Since(start) > d {
			c.dump()
			c.t.Fatalf("%.3fs: after %v still not: %s", time.Since(c.began).Seconds(), d, what)
		}
	}
}

func (c *cluster) dump() {
	c.t.Helper()
	for _, n := range c.nodes {
		l := n.life()
		if l == nil || l.store.Load() == nil {
			c.t.Logf("%s is off", n.name)
			continue
		}
		st := l.store.Load().Status()
		var seen []string
		for _, m := range l.gossip.Members() {
			seen = append(seen, fmt.Sprint(m.Name, " ", m.State))
		}
		pods := slices.Sorted(maps.Keys(n.pods.all()))
		if len(c.nodes) > 10 { // of many only what differs
			if !st.Leads {
				st.Replicas = nil
			}
			seen = slices.DeleteFunc(seen, func(m string) bool { return strings.HasSuffix(m, fmt.Sprint(" ", gossip.Alive)) })
			pods = slices.DeleteFunc(pods, func(p string) bool { return strings.HasPrefix(p, crowdApp) })
		}
		c.t.Logf("%s: %+v; gossip %v; pods %v", n.name, st, seen, pods)
	}
}

// together reports whether all nodes that run follow one leader in one lineage.
func (c *cluster) together() bool {
	up := c.up()
	if c.leader() == nil {
		return false
	}
	lineages := map[string]bool{}
	for _, n := range up {
		st := n.store().Status()
		if st.Joining || st.Leader == "" {
			return false
		}
		if st.Leads {
			votes := 0
			for _, r := range st.Replicas {
				if r.Votes {
					votes++
				}
			}
			if len(st.Replicas) != len(up) || votes < min(len(up), 3) {
				return false
			}
		}
		lineages[st.Lineage.ID] = true
	}
	return len(lineages) == 1
}

// converge waits until all nodes that run are together and hold the same.
func (c *cluster) converge(limit time.Duration) time.Duration {
	c.t.Helper()
	took := c.within(limit, "all nodes in one lineage", c.together)
	took += c.within(max(limit-took, 5*time.Second), "all nodes hold the same, byte for byte", c.same)
	return took
}

// same compares the exports of all nodes that run.
func (c *cluster) same() bool {
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
	defer cancel()
	var want string
	for i, n := range c.up() {
		s := n.store()
		if s.Barrier(ctx) != nil {
			return false
		}
		got, err := fingerprint(s)
		if err != nil {
			c.t.Errorf("%s: %v", n.name, err)
		}
		if i == 0 {
			want = got
		} else if got != want {
			return false
		}
	}
	return true
}

// write writes through a node until it is acknowledged, and returns how long that took.
func (c *cluster) write(n *node, key, value string, limit time.Duration) time.Duration {
	c.t.Helper()
	start := time.Now()
	if err := c.acknowledged(n, key, value, limit); err != nil {
		c.dump()
		c.t.Fatalf("%.3fs: %v", time.Since(c.began).Seconds(), err)
	}
	return time.Since(start)
}

// acknowledged writes through a node until it is acknowledged.
func (c *cluster) acknowledged(n *node, key, value string, limit time.Duration) error {
	ctx, cancel := context.WithTimeout(context.Background(), limit)
	defer cancel()
	for {
		err := c.try(ctx, n, key, value)
		if err == nil {
			return nil
		}
		if ctx.Err() != nil {
			return fmt.Errorf("%s: write %s: not acknowledged within %v: %w", n.name, key, limit, err)
		}
		pause(ctx, 20*time.Millisecond)
	}
}

// try writes once; the history knows.
func (c *cluster) try(ctx context.Context, n *node, key, value string) error {
	return c.hist.do(ctx, n, &op{kind: opPut, key: key, value: value, expect: state.Any})
}
