package nodetest

import (
	"context"
	"crypto/x509"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"github.com/podman-swarm/podman-swarm/internal/join"
	"github.com/podman-swarm/podman-swarm/internal/node/peers"
	"github.com/podman-swarm/podman-swarm/internal/pki"
	"github.com/podman-swarm/podman-swarm/internal/state"
)

// Patience is how long a test waits for what must happen.
const Patience = 30 * time.Second

// Node is one of a swarm.
type Node struct {
	Name, Addr string
	Keys       *pki.Authority
	Cert       *pki.NodeCert
	Peers      *peers.Peers
	Store      *state.Store
	Admitter   *join.Admitter
	// Refuse and TurnedAway are those of peers.Config, from the next start on.
	Refuse     func(*x509.Certificate) error
	TurnedAway func(addr string)

	dir     string
	lineage string
	known   []string
	stop    context.CancelFunc
	parts   sync.WaitGroup
}

// Swarm starts nodes that have met, and whose records are in the state. They end with the test.
func Swarm(t *testing.T, names ...string) []*Node {
	t.Helper()
	var all []*Node
	for _, name := range names {
		n := &Node{Name: name, Addr: Address(t), dir: t.TempDir()}
		if len(all) > 0 {
			n.lineage, n.known = all[0].Store.Status().Lineage.ID, []string{all[0].Addr}
			if err := pki.InstallBundle(filepath.Join(n.dir, "pki"), all[0].Keys.Bundle()); err != nil {
				t.Fatal(err)
			}
		}
		n.Start(t)
		all = append(all, n)
		t.Cleanup(n.Die)
		ctx, cancel := context.WithTimeout(t.Context(), Patience)
		defer cancel()
		if err := n.Store.Ready(ctx); err != nil {
			t.Fatalf("node %s: %v", name, err)
		}
		pods := netip.MustParsePrefix(fmt.Sprintf("10.244.%d.0/24", len(all)))
		if _, err := n.Admitter.Enroll(ctx, name, n.Addr, n.Cert.Certificate().Leaf.RawSubjectPublicKeyInfo, pods); err != nil {
			t.Fatalf("node %s: %v", name, err)
		}
	}
	for _, n := range all {
		Eventually(t, "node "+n.Name+" sees all others vote", func() bool {
			voters := 0
			for _, r := range n.Store.Status().Replicas {
				if r.Votes {
					voters++
				}
			}
			return voters == len(names) && n.alive() == len(names)
		})
	}
	return all
}

func (n *Node) alive() int {
	alive := 0
	for _, m := range n.Peers.Members() {
		if m.Alive() {
			alive++
		}
	}
	return alive
}

// Start starts a node, also one that died.
func (n *Node) Start(t *testing.T) {
	t.Helper()
	log := slog.New(slog.DiscardHandler)
	ctx, cancel := context.WithCancel(context.WithoutCancel(t.Context()))
	n.stop = cancel
	var err error
	if n.Keys, err = pki.Open(filepath.Join(n.dir, "pki")); err != nil {
		t.Fatal(err)
	}
	if n.Cert, err = n.Keys.Node(n.Name, "127.0.0.1"); err != nil {
		t.Fatal(err)
	}
	n.Peers, err = peers.Open(ctx, peers.Config{
		Name: n.Name, Bind: n.Addr, Addr: n.Addr, API: n.Name + ":6443", Release: "v-test", Cluster: n.Keys.Cluster(), Trust: n.Cert,
		Refuse: n.Refuse, TurnedAway: n.TurnedAway, Keys: n.Keys.GossipKeys(), Log: log,
	})
	if err != nil {
		t.Fatal(err)
	}
	n.Store, err = state.Open(ctx, state.Config{
		Dir: filepath.Join(n.dir, "state"), NodeID: n.Name, Addr: n.Addr, Log: log,
		Network: n.Peers.Network(), Membership: n.Peers.Membership(), Join: n.lineage,
	})
	if err != nil {
		t.Fatal(err)
	}
	n.Peers.Answer(n.Store.Serve)
	n.Admitter = join.New(join.Config{
		Keys: n.Keys, Store: n.Store, PodRange: netip.MustParsePrefix("10.244.0.0/16"), ServiceRange: netip.MustParsePrefix("10.43.0.0/16"),
		Release: "v-test", Format: 1, Peers: func() []string { return []string{n.Addr} },
		Lineage: func() string { return n.Store.Status().Lineage.ID }, Log: log,
	})
	n.parts.Go(func() { _ = n.Peers.Gossip.Run(ctx, func() []string { return n.known }) })
	n.parts.Go(func() { _ = n.Cert.Run(ctx) })
	n.parts.Go(func() { _ = n.Peers.Wire.FollowTrust(ctx, n.Keys.Changed) })
}

// Die ends a node without a good-bye.
func (n *Node) Die() {
	n.stop()
	_ = n.Peers.Close()
	_ = n.Store.Close()
	n.parts.Wait()
}

// Put writes a key through this node.
func (n *Node) Put(t *testing.T, key, value string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), Patience)
	defer cancel()
	if _, err := n.Store.Apply(ctx, state.Write{Key: key, Value: []byte(value), Expect: state.Any}); err != nil {
		t.Fatal(err)
	}
}

// Address is a loopback address that nobody uses. Connections begin at 127.0.0.1, so none takes the
// port while a node is off, and other test processes have other addresses.
func Address(t *testing.T) string {
	t.Helper()
	pid := os.Getpid()
	l, err := (&net.ListenConfig{}).Listen(t.Context(), "tcp", fmt.Sprintf("127.%d.%d.%d:0", 1+pid>>16%254, pid>>8&0xff, pid&0xff))
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return l.Addr().String()
}

// Eventually waits until a condition is met.
func Eventually(t *testing.T, what string, met func() bool) {
	t.Helper()
	late := time.After(Patience)
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	for !met() {
		select {
		case <-tick.C:
		case <-late:
			t.Fatalf("not within %s: %s", Patience, what)
		}
	}
}
