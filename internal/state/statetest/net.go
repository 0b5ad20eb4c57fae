package statetest

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"slices"
	"sync"
	"syscall"
	"time"

	"github.com/podman-swarm/podman-swarm/internal/simnet"
	"github.com/podman-swarm/podman-swarm/internal/state/call"
	"github.com/podman-swarm/podman-swarm/internal/state/lineage"
)

// Net connects nodes. Set the times before the first node is made.
type Net struct {
	*simnet.Net
	Gossip time.Duration // until all know what a node tells
	Detect time.Duration // until all know that a node is gone
	// Heard is told what nodes tell; nil: nobody is.
	Heard func(name string, s lineage.Standing)

	mu    sync.Mutex
	nodes map[string]*Node
}

// New returns a network as it is between machines of one site.
func New() *Net {
	return &Net{
		Net:    simnet.New(rand.New(rand.NewPCG(1, 2)), simnet.Quality{Delay: 500 * time.Microsecond}),
		Gossip: 300 * time.Millisecond, Detect: 3 * time.Second, nodes: map[string]*Node{},
	}
}

// Node is one node's view of the network. It implements state.Network and state.Membership.
type Node struct {
	Name string
	n    *Net
	host *simnet.Host

	// Guarded by Net.mu.
	up      bool
	told    lineage.Standing
	lost    map[string]time.Time // since when others cannot be reached
	view    map[string]lineage.Peer
	changed chan struct{}
}

// Addr is where a node of that name is reached.
func Addr(name string) string { return name + ":7946" }

// Start makes a node, or brings a dead one back; serve answers its calls.
func (n *Net) Start(ctx context.Context, name string, serve func(ctx context.Context, request []byte) []byte) *Node {
	n.mu.Lock()
	defer n.mu.Unlock()
	x := &Node{
		Name: name, n: n, host: n.Plug(ctx, name, Addr(name), serve), up: true,
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
	x.host.Unplug(false)
	n.stir()
}

// Cut stops all traffic between nodes for which cut is true, in both directions; nil heals.
func (n *Net) Cut(cut func(a, b string) bool) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if cut == nil {
		n.Sever(nil)
	} else {
		n.Sever(func(a, b string) bool { return cut(a, b) || cut(b, a) })
	}
	n.stir()
}

// Split cuts the nodes named from all others.
func (n *Net) Split(names ...string) {
	n.Cut(func(a, b string) bool { return slices.Contains(names, a) != slices.Contains(names, b) })
}

// stir makes gossip spread what has changed. Called with the lock held.
func (n *Net) stir() {
	now := time.Now()
	for _, x := range n.nodes {
		for name, other := range n.nodes {
			if n.Meet(x.host, other.host) {
				delete(x.lost, name)
			} else if _, ok := x.lost[name]; !ok {
				x.lost[name] = now
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
func (x *Node) Listen(id string) (net.Listener, error) { return x.host.Listen(id) }

// Dial implements state.Network.
func (x *Node) Dial(ctx context.Context, addr, id string) (net.Conn, error) {
	return x.host.Dial(ctx, addr, id)
}

// Call implements state.Network.
func (x *Node) Call(ctx context.Context, addr string, request []byte) ([]byte, error) {
	answer, err := x.host.Call(ctx, addr, request)
	if errors.Is(err, syscall.ECONNREFUSED) {
		err = fmt.Errorf("%w: %w", call.ErrUnsent, err)
	}
	return answer, err
}
