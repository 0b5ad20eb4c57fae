package wire

import (
	"fmt"
	"math/rand/v2"
	"net"
	"testing"
	"time"
)

// caller is a connection that only has an address.
type caller struct {
	net.Conn
	addr   string
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
		if !g.enter(c, now.Add(time.Duration(i))) {
			t.Fatalf("the bound is %d", i)
		}
	}
	next, last := all[maxFromOne], all[maxFromOne+1]
	if g.enter(next, now.Add(grace/2)) {
		t.Error("young handshakes were chased away")
	}
	if !g.enter(&caller{addr: "10.0.0.2:1"}, now) {
		t.Error("another address has to wait")
	}
	if !g.enter(next, now.Add(grace)) || !all[0].closed || all[1].closed {
		t.Error("the oldest did not make room")
	}
	if g.leave(all[0]) || !g.leave(all[1]) || g.leave(all[1]) {
		t.Error("leave does not tell who was inside")
	}
	if !g.enter(last, now) || all[2].closed {
		t.Error("who left made no room")
	}
}

func TestGateFavoursTheModest(t *testing.T) {
	var g gate
	now := time.Unix(1000, 0)
	greedy := callers(maxHandshakes, func(i int) string { return fmt.Sprintf("10.0.%d.1:1", i/maxFromOne) })
	for _, c := range greedy {
		if !g.enter(c, now) {
			t.Fatal("full too early")
		}
	}
	if !g.enter(&caller{addr: "10.9.9.9:1"}, now) || !greedy[0].closed {
		t.Error("a new address did not get in at once")
	}
	// Full of as many addresses as there are places: nobody is greedy, only time decides.
	g = gate{}
	for _, c := range callers(maxHandshakes, func(i int) string { return fmt.Sprintf("10.1.%d.%d:1", i/200, 1+i%200) }) {
		g.enter(c, now)
	}
	next := &caller{addr: "10.9.9.9:1"}
	if g.enter(next, now.Add(grace/2)) || !g.enter(next, now.Add(grace)) {
		t.Error("grace does not decide")
	}
}

func TestGateCountsIPv6ByNetwork(t *testing.T) {
	for a, b := range map[string]string{
		"[2001:db8::1]:1":      "[2001:db8::ffff]:2",
		"[::ffff:10.0.0.1]:1":  "10.0.0.1:2",
		"[fe80::1%lo]:1":       "[fe80::2]:1",
		"[2001:db8:0:1::1]:80": "[2001:db8:0:1:9::]:80",
	} {
		if from(&caller{addr: a}) != from(&caller{addr: b}) {
			t.Errorf("%s and %s are two", a, b)
		}
	}
	if from(&caller{addr: "[2001:db8::1]:1"}) == from(&caller{addr: "[2001:db8:0:1::1]:1"}) ||
		from(&caller{addr: "10.0.0.1:1"}) == from(&caller{addr: "10.0.0.2:1"}) {
		t.Error("two are one")
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
			if g.enter(c, now) {
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
