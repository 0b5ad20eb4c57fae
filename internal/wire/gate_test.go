package wire

import (
	"fmt"
	"math/rand/v2"
	"net"
	"net/netip"
	"testing"
	"time"
)

// caller is a connection that only has an address, and keeps everybody waiting since it came.
type caller struct {
	addr   string
	came   time.Time
	quick  bool // has never kept anybody waiting
	closed bool
}

func (c *caller) RemoteAddr() net.Addr {
	a, err := net.ResolveTCPAddr("tcp", c.addr)
	if err != nil {
		panic(err)
	}
	return a
}

func (c *caller) Close() error { c.closed = true; return nil }

func (c *caller) waited(now time.Time) time.Duration {
	if c.quick {
		return 0
	}
	return now.Sub(c.came)
}

// come lets a caller try to enter.
func come(g *gate, c *caller, now time.Time) bool {
	c.came = now
	return g.enter(c, now)
}

func callers(n int, addr func(int) string) []*caller {
	out := make([]*caller, n)
	for i := range out {
		out[i] = &caller{addr: addr(i)}
	}
	return out
}

func TestGateOfOneAddress(t *testing.T) {
	var g gate
	now := time.Unix(1000, 0)
	all := callers(maxFromOne+2, func(i int) string { return fmt.Sprintf("10.0.0.1:%d", 1000+i) })
	for i, c := range all[:maxFromOne] {
		if !come(&g, c, now.Add(time.Duration(i))) {
			t.Fatalf("the bound is %d", i)
		}
	}
	next, last := all[maxFromOne], all[maxFromOne+1]
	if come(&g, next, now.Add(grace/2)) {
		t.Error("young handshakes were chased away")
	}
	if !come(&g, &caller{addr: "10.0.0.2:1"}, now) {
		t.Error("another address has to wait")
	}
	if !come(&g, next, now.Add(grace)) || !all[0].closed || all[1].closed {
		t.Error("the oldest did not make room")
	}
	if g.leave(all[0]) || !g.leave(all[1]) || g.leave(all[1]) {
		t.Error("leave does not tell who was inside")
	}
	if !come(&g, last, now) || all[2].closed {
		t.Error("who left made no room")
	}
}

func TestGateFavoursTheModest(t *testing.T) {
	var g gate
	now := time.Unix(1000, 0)
	greedy := callers(maxHandshakes, func(i int) string { return fmt.Sprintf("10.0.%d.1:1", i/maxFromOne) })
	for _, c := range greedy {
		if !come(&g, c, now) {
			t.Fatal("full too early")
		}
	}
	if !come(&g, &caller{addr: "10.9.9.9:1"}, now) || !greedy[0].closed {
		t.Error("a new address did not get in at once")
	}
	// Full of as many addresses as there are places: nobody is greedy, only time decides.
	g = gate{}
	for _, c := range callers(maxHandshakes, func(i int) string { return fmt.Sprintf("10.1.%d.%d:1", i/200, 1+i%200) }) {
		come(&g, c, now)
	}
	next := &caller{addr: "10.9.9.9:1"}
	if come(&g, next, now.Add(grace/2)) || !come(&g, next, now.Add(grace)) {
		t.Error("grace does not decide")
	}
}

func TestGateCountsIPv6ByNetwork(t *testing.T) {
	of := func(addr string) netip.Prefix { return prefix((&caller{addr: addr}).RemoteAddr()) }
	for a, b := range map[string]string{
		"[2001:db8::1]:1":      "[2001:db8::ffff]:2",
		"[::ffff:10.0.0.1]:1":  "10.0.0.1:2",
		"[fe80::1%lo]:1":       "[fe80::2]:1",
		"[2001:db8:0:1::1]:80": "[2001:db8:0:1:9::]:80",
	} {
		if of(a) != of(b) {
			t.Errorf("%s and %s are two", a, b)
		}
	}
	if of("[2001:db8::1]:1") == of("[2001:db8:0:1::1]:1") || of("10.0.0.1:1") == of("10.0.0.2:1") {
		t.Error("two are one")
	}
}

// TestGateKeepsRealPeers: a burst of those who keep nobody waiting does not chase itself away, however long this
// node takes for them.
func TestGateKeepsRealPeers(t *testing.T) {
	var g gate
	now := time.Unix(1000, 0)
	peers := callers(maxFromOne, func(int) string { return "10.0.0.1:1" })
	for i, c := range peers {
		if c.quick = i != 5; !come(&g, c, now) {
			t.Fatal("full too early")
		}
	}
	later := now.Add(time.Minute)
	if !come(&g, &caller{addr: "10.0.0.1:1", quick: true}, later) || !peers[5].closed {
		t.Error("the only slow one made no room")
	}
	if come(&g, &caller{addr: "10.0.0.1:1"}, later) {
		t.Error("somebody quick had to make room")
	}
}

func TestArrivalMeasuresThePeer(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	peer, err := net.Dial("tcp", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer peer.Close()
	c, err := l.Accept()
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	a := &arrival{TCPConn: c.(*net.TCPConn), born: time.Now()}
	hour := a.born.Add(time.Hour)
	if d := a.waited(hour); d != 0 {
		t.Errorf("waited %v before anything was read", d)
	}
	read := make(chan error)
	go func() { _, err := a.Read(make([]byte, 8)); read <- err }()
	eventually(t, "a read that waits counts", func() bool { return a.waited(hour) > 59*time.Minute })
	if _, err := peer.Write([]byte("x")); err != nil {
		t.Fatal(err)
	}
	if err := <-read; err != nil {
		t.Fatal(err)
	}
	if d := a.waited(hour); d <= 0 || d > time.Minute {
		t.Errorf("waited %v in all", d)
	}
}

// TestGateKeepsItsBounds at random.
func TestGateKeepsItsBounds(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 2))
	var g gate
	now, inside := time.Unix(1000, 0), map[*caller]bool{}
	for range 5000 {
		now = now.Add(time.Duration(r.IntN(int(grace / 20))))
		if r.IntN(3) > 0 {
			c := &caller{addr: fmt.Sprintf("10.0.0.%d:1", 1+int(r.ExpFloat64()*5)%200)}
			if come(&g, c, now) {
				inside[c] = true
			}
		} else {
			for c := range inside {
				if g.leave(c) == c.closed {
					t.Fatal("a closed one was inside, or an open one was not")
				}
				delete(inside, c)
				break
			}
		}
		open, per := 0, map[string]int{}
		for c := range inside {
			if !c.closed {
				open++
				per[c.addr]++
			}
		}
		if open != len(g.inside) || open > maxHandshakes || len(per) != len(g.counts) {
			t.Fatalf("%d open, %d inside; %d addresses, %d counted", open, len(g.inside), len(per), len(g.counts))
		}
		for addr, n := range per {
			if n > maxFromOne {
				t.Fatalf("%d of %s", n, addr)
			}
		}
	}
}
