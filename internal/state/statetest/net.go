package statetest

import (
	"context"
	"errors"
	"fmt"
	"net"
	"slices"
	"sync"
	"time"

	"github.com/podman-swarm/podman-swarm/internal/state/lineage"
)

// Net connects nodes. Set the delays before the first node is made.
type Net struct {
	Delay  time.Duration // of every message, one way
	Gossip time.Duration // until all know what a node tells
	Detect time.Duration // until all know that a node is gone
	// Heard is told what nodes tell; nil: nobody is.
	Heard func(name string, s lineage.Standing)

	mu    sync.Mutex
	nodes map[string]*Node
	cut   func(a, b string) bool
	conns map[*conn]struct{}
}

// New returns a network as it is between machines of one site.
func New() *Net {
	return &Net{
		Delay: time.Millisecond, Gossip: 300 * time.Millisecond, Detect: 3 * time.Second,
		nodes: map[string]*Node{}, conns: map[*conn]struct{}{},
	}
}

// Node is one node's view of the network. It implements state.Network and state.Membership.
type Node struct {
	Name string
	n    *Net

	// Guarded by Net.mu.
	up        bool
	serve     func(ctx context.Context, request []byte) []byte
	listeners map[string]*listener
	told      lineage.Standing
	lost      map[string]time.Time // since when others cannot be reached
	view      map[string]lineage.Peer
	changed   chan struct{}
}

// blackhole is how long a call into a partition hangs if its context does not end first.
const blackhole = 5 * time.Second

var errRefused = errors.New("connection refused")

// Addr is where a node of that name is reached.
func Addr(name string) string { return name + ":7946" }

// Start makes a node, or brings a dead one back; serve answers its calls.
func (n *Net) Start(name string, serve func(ctx context.Context, request []byte) []byte) *Node {
	n.mu.Lock()
	defer n.mu.Unlock()
	x := &Node{
		Name: name, n: n, up: true, serve: serve, listeners: map[string]*listener{},
		lost: map[string]time.Time{}, view: map[string]lineage.Peer{}, changed: make(chan struct{}),
	}
	n.nodes[name] = x
	n.stir()
	return x
}

// Kill takes a node off the network, as when its process is killed.
func (n *Net) Kill(name string) {
	n.mu.Lock()
	defer n.mu.Unlock()
	x := n.nodes[name]
	x.up, x.told = false, lineage.Standing{}
	for _, l := range x.listeners {
		l.closeLocked()
	}
	n.reset(func(a, b string) bool { return a == name || b == name })
	n.stir()
}

// Cut stops all traffic between nodes for which cut is true, in both directions; nil heals. What was
// on its way is lost.
func (n *Net) Cut(cut func(a, b string) bool) {
	n.mu.Lock()
	defer n.mu.Unlock()
	was := n.cut
	n.cut = cut
	// Streams that crossed the cut are broken for good; they notice when they speak again.
	n.reset(func(a, b string) bool {
		return was != nil && (was(a, b) || was(b, a)) && (cut == nil || !cut(a, b) && !cut(b, a))
	})
	n.stir()
}

// Split cuts the nodes named from all others.
func (n *Net) Split(names ...string) {
	n.Cut(func(a, b string) bool { return slices.Contains(names, a) != slices.Contains(names, b) })
}

// Break resets every connection: nobody is cut off, all must dial again.
func (n *Net) Break() {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.reset(func(string, string) bool { return true })
}

// reset closes connections. Called with the lock held.
func (n *Net) reset(which func(a, b string) bool) {
	for c := range n.conns {
		if which(c.from, c.to) {
			delete(n.conns, c)
			c.shut()
		}
	}
}

// open reports whether messages pass. Called with the lock held.
func (n *Net) open(a, b string) bool {
	return n.nodes[a] != nil && n.nodes[a].up && n.nodes[b] != nil && n.nodes[b].up && !n.severed(a, b)
}

func (n *Net) severed(a, b string) bool { return n.cut != nil && (n.cut(a, b) || n.cut(b, a)) }

// stir makes gossip spread what has changed. Called with the lock held.
func (n *Net) stir() {
	now := time.Now()
	for _, x := range n.nodes {
		for other := range n.nodes {
			if n.open(x.Name, other) {
				delete(x.lost, other)
			} else if _, ok := x.lost[other]; !ok {
				x.lost[other] = now
			}
		}
	}
	for _, after := range []time.Duration{n.Gossip, n.Detect} {
		time.AfterFunc(after, n.spread)
	}
}

func (n *Net) spread() {
	n.mu.Lock()
	defer n.mu.Unlock()
	for _, x := range n.nodes {
		changed := false
		for name, other := range n.nodes {
			since, lost := x.lost[name]
			now, known := x.view[name]
			next := lineage.Peer{Name: name, Addr: Addr(name), Standing: other.told}
			switch {
			case !lost && now != next:
				x.view[name], changed = next, true
			case lost && known && time.Since(since) >= n.Detect:
				delete(x.view, name)
				changed = true
			}
		}
		if changed {
			close(x.changed)
			x.changed = make(chan struct{})
		}
	}
}

// Peers implements state.Membership.
func (x *Node) Peers() []lineage.Peer {
	x.n.mu.Lock()
	defer x.n.mu.Unlock()
	var out []lineage.Peer
	for name, p := range x.view {
		if name == x.Name {
			p.Standing = x.told
		}
		out = append(out, p)
	}
	slices.SortFunc(out, func(a, b lineage.Peer) int {
		if a.Name < b.Name {
			return -1
		}
		return 1
	})
	return out
}

// Changed implements state.Membership.
func (x *Node) Changed() <-chan struct{} {
	x.n.mu.Lock()
	defer x.n.mu.Unlock()
	return x.changed
}

// Tell implements state.Membership.
func (x *Node) Tell(s lineage.Standing) {
	x.n.mu.Lock()
	defer x.n.mu.Unlock()
	if x.up {
		x.told = s
		x.n.stir()
		if x.n.Heard != nil {
			x.n.Heard(x.Name, s)
		}
	}
}

// Listen implements state.Network.
func (x *Node) Listen(id string) (net.Listener, error) {
	x.n.mu.Lock()
	defer x.n.mu.Unlock()
	if !x.up {
		return nil, net.ErrClosed
	}
	if x.listeners[id] != nil {
		return nil, fmt.Errorf("listen for lineage %s twice", id)
	}
	l := &listener{node: x, id: id, incoming: make(chan net.Conn), done: make(chan struct{})}
	x.listeners[id] = l
	return l, nil
}

// Dial implements state.Network.
func (x *Node) Dial(ctx context.Context, addr, id string) (net.Conn, error) {
	to, err := x.pass(ctx, addr)
	if err != nil {
		return nil, err
	}
	n := x.n
	n.mu.Lock()
	l := to.listeners[id]
	if l == nil {
		n.mu.Unlock()
		return nil, errRefused
	}
	near, far := pipe(n, x.Name, to.Name)
	n.conns[near], n.conns[far] = struct{}{}, struct{}{}
	n.mu.Unlock()
	select {
	case l.incoming <- far:
		return near, nil
	case <-l.done:
		err = errRefused
	case <-ctx.Done():
		err = ctx.Err()
	}
	_ = near.Close()
	return nil, err
}

// Call implements state.Network.
func (x *Node) Call(ctx context.Context, addr string, request []byte) ([]byte, error) {
	to, err := x.pass(ctx, addr)
	if err != nil {
		return nil, err
	}
	answer := to.serve(ctx, request)
	if _, err := to.pass(ctx, Addr(x.Name)); err != nil {
		return nil, err
	}
	return answer, nil
}

// pass takes one message to the node at an address.
func (x *Node) pass(ctx context.Context, addr string) (*Node, error) {
	name, _, _ := net.SplitHostPort(addr)
	if err := wait(ctx, x.n.Delay); err != nil {
		return nil, err
	}
	x.n.mu.Lock()
	to := x.n.nodes[name]
	open, severed := x.up && x.n.open(x.Name, name), x.n.severed(x.Name, name)
	x.n.mu.Unlock()
	switch {
	case open:
		return to, nil
	case severed:
		if err := wait(ctx, blackhole); err != nil {
			return nil, err
		}
		return nil, errors.New("i/o timeout")
	}
	return nil, errRefused
}

func wait(ctx context.Context, d time.Duration) error {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}
