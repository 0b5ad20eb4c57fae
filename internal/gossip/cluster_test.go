package gossip

import (
	"bytes"
	"context"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"net"
	"testing"
	"testing/synctest"
	"time"

	"github.com/podman-swarm/podman-swarm/internal/simnet"
)

// cluster is a number of members on one network, in virtual time.
type cluster struct {
	t   *testing.T
	net *simnet.Net
	all []*node
}

type node struct {
	*Gossip
	host  *simnet.Host
	addr  string
	peers []string
	stop  context.CancelFunc
	done  chan struct{}
}

func key(b byte) []byte { return bytes.Repeat([]byte{b}, keySize) }

func address(i int) string { return fmt.Sprintf("10.0.%d.%d:7946", i/200, i%200+1) }

func nodeName(i int) string { return fmt.Sprintf("n%02d", i) }

// inCluster runs a test with n members that know each other.
func inCluster(t *testing.T, n int, loss float64, f func(*cluster)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		c := &cluster{t: t, net: simnet.New(rand.New(rand.NewPCG(rand.Uint64(), 1)), simnet.Quality{Delay: 500 * time.Microsecond, Loss: loss})}
		defer c.close()
		for i := range n {
			c.start(i, address(i))
			if i > 0 {
				c.join(i, 0)
			}
		}
		c.within(10*time.Second, "all see all", func() bool { return c.agree(n) })
		pause(20 * time.Second) // so that rumours of the beginning are over
		f(c)
	})
}

// start makes member i, which is known to nobody yet.
func (c *cluster) start(i int, addr string) *node {
	c.t.Helper()
	x, err := c.open(i, addr, key(1))
	if err != nil {
		c.t.Fatal(err)
	}
	if i == len(c.all) {
		c.all = append(c.all, nil)
	}
	c.all[i] = x
	return x
}

func (c *cluster) open(i int, addr string, keys ...[]byte) (*node, error) {
	const proto = "gossip"
	h := c.net.Plug(context.WithoutCancel(c.t.Context()), nodeName(i), addr, nil)
	listener, err := h.Listen(proto)
	if err != nil {
		return nil, err
	}
	g, err := Open(c.t.Context(), Config{
		Name: nodeName(i), Addr: addr, Packets: h.Packets(), Listener: listener,
		Dial: func(ctx context.Context, addr string) (net.Conn, error) { return h.Dial(ctx, addr, proto) },
		Keys: keys, Label: "cluster", Meta: []byte("new"), Log: testLog(c.t),
	})
	if err != nil {
		return nil, err
	}
	x := &node{Gossip: g, host: h, addr: addr, done: make(chan struct{})}
	var ctx context.Context
	ctx, x.stop = context.WithCancel(c.t.Context())
	go func() {
		defer close(x.done)
		if err := g.Run(ctx, func() []string { return x.peers }); err != nil {
			c.t.Error(err)
		}
	}()
	return x, nil
}

// testLog is silent but for what is worse than expected.
func testLog(testing.TB) *slog.Logger { return slog.New(slog.DiscardHandler) }

func (c *cluster) join(i int, via ...int) {
	c.t.Helper()
	var addrs []string
	for _, v := range via {
		addrs = append(addrs, c.all[v].addr)
	}
	if err := c.all[i].Join(c.t.Context(), addrs); err != nil {
		c.t.Fatal(err)
	}
}

// kill unplugs a member and ends it.
func (c *cluster) kill(i int) {
	c.all[i].host.Unplug(true)
	c.all[i].end()
	c.all[i] = nil
}

func (x *node) end() {
	x.stop()
	<-x.done
	_ = x.Close()
}

func (c *cluster) close() {
	for _, x := range c.all {
		if x != nil {
			go x.end()
		}
	}
	for _, x := range c.all {
		if x != nil {
			_ = x.Close() // waits
			<-x.done
		}
	}
}

// pause lets virtual time pass.
func pause(d time.Duration) { <-time.After(d) }

// within waits for a condition and returns how long it took.
func (c *cluster) within(d time.Duration, what string, ok func() bool) time.Duration {
	c.t.Helper()
	const step = 20 * time.Millisecond
	for start := time.Now(); ; pause(step) {
		if ok() {
			return time.Since(start)
		}
		if time.Since(start) > d {
			for i, x := range c.all {
				if x == nil {
					continue
				}
				var seen []string
				for _, m := range x.Members() {
					if m.State != Alive {
						seen = append(seen, fmt.Sprintf("%s %v for %v", m.Name, m.State, time.Since(m.Since)))
					}
				}
				c.t.Logf("%s sees %d alive, not %v", nodeName(i), x.count(Alive), seen)
			}
			c.t.Fatalf("not within %v: %s", d, what)
		}
	}
}

func (g *Gossip) count(s State) int {
	g.book.mu.Lock()
	defer g.book.mu.Unlock()
	n := 0
	for _, e := range g.book.members {
		if e.State == s {
			n++
		}
	}
	return n
}

func (g *Gossip) member(name string) Member {
	g.book.mu.Lock()
	defer g.book.mu.Unlock()
	return g.book.members[name].Member
}

// each tells whether a condition holds for every member that was not killed.
func (c *cluster) each(ok func(*node) bool) bool {
	for _, x := range c.all {
		if x != nil && !ok(x) {
			return false
		}
	}
	return true
}

// agree tells whether every member sees that many alive.
func (c *cluster) agree(n int) bool {
	return c.each(func(x *node) bool { return x.count(Alive) == n })
}

// split cuts the first k members off from all others; 0 heals.
func (c *cluster) split(k int) {
	first := map[string]bool{}
	for i := range k {
		first[nodeName(i)] = true
	}
	c.net.Sever(func(from, to string) bool { return first[from] != first[to] })
}
