package node

import (
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"slices"
	"sync/atomic"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/podman-swarm/podman-swarm/internal/join"
	"github.com/podman-swarm/podman-swarm/internal/node/afar"
	"github.com/podman-swarm/podman-swarm/internal/node/operate"
	"github.com/podman-swarm/podman-swarm/internal/node/peers"
	"github.com/podman-swarm/podman-swarm/internal/node/preflight"
	"github.com/podman-swarm/podman-swarm/internal/pki"
	"github.com/podman-swarm/podman-swarm/internal/state"
	"github.com/podman-swarm/podman-swarm/internal/version"
	"github.com/podman-swarm/podman-swarm/internal/wire"
)

const (
	// podRange is where the nodes' ranges of pod addresses are taken from.
	podRange = "10.244.0.0/16"
	// swarmFormat counts the changes after which nodes of different releases cannot be mixed.
	swarmFormat = 1
	freeze      = "freeze"
)

// cluster is what this node shares with the others: keys, the network between nodes, the state.
type cluster struct {
	host     *host
	log      *slog.Logger
	keys     *pki.Authority
	cert     *pki.NodeCert
	peers    *peers.Peers
	store    *state.Store
	admitter *join.Admitter
	// opened is store as soon as there is one: peers knock before.
	opened atomic.Pointer[state.Store]
	ops    operations
	// refusals are the addresses of nodes that refuse this one.
	refusals chan string
}

// openCluster opens them in order.
func openCluster(ctx context.Context, h *host, keys *pki.Authority) (*cluster, error) {
	c := &cluster{host: h, log: h.log.With("part", "cluster"), keys: keys, refusals: make(chan string, 1)}
	var err error
	if c.cert, err = keys.Node(h.cfg.NodeName, h.cfg.AdvertiseAddr); err != nil {
		return nil, err
	}
	c.peers, err = peers.Open(ctx, peers.Config{
		Name: h.cfg.NodeName, Bind: h.cfg.BindAddr, Addr: h.cfg.wireAddr(), API: h.cfg.apiAddr(), Release: version.Swarm(),
		Cluster: keys.Cluster(), Trust: c.cert, Refuse: c.refuse, TurnedAway: c.turnedAway, Keys: keys.GossipKeys(), Log: h.log,
	})
	if err != nil {
		return nil, err
	}
	// A damaged replica is made anew from the others', so they are looked for before it is opened.
	looking, found := context.WithCancel(ctx)
	search := make(chan error, 1)
	go func() { search <- c.peers.Gossip.Run(looking, c.remembered) }()
	store, err := state.Open(ctx, state.Config{
		Dir: h.dir.File("state"), NodeID: h.cfg.NodeName, Addr: h.cfg.wireAddr(), Log: h.log.With("part", "state"),
		Network: c.peers.Network(), Membership: c.peers.Membership(), Join: h.me.is().Lineage, Freeze: h.cfg.OnQuorumLoss == freeze,
		Handing: afar.Handing,
	})
	found()
	if err := errors.Join(err, <-search); err != nil {
		return nil, errors.Join(err, c.peers.Close())
	}
	c.store = store
	c.opened.Store(store)
	c.peers.Answer(store.Serve)
	c.admit()
	return c, nil
}

// close stops taking part. Everything acknowledged is on disk already.
func (c *cluster) close() {
	if err := errors.Join(c.store.Close(), c.peers.Close()); err != nil {
		c.log.Debug("close", "err", err)
	}
}

// run keeps this node's place among the others until ctx ends.
func (c *cluster) run(ctx context.Context) error {
	parts, ctx := errgroup.WithContext(ctx)
	parts.Go(func() error { return c.peers.Gossip.Run(ctx, c.known) })
	parts.Go(func() error { return c.cert.Run(ctx) })
	parts.Go(func() error { return c.peers.Wire.FollowTrust(ctx, c.keys.Changed) })
	parts.Go(func() error {
		return operate.Sharing{Keys: c.keys, Store: c.store, Peers: c.peers, Log: c.log}.Run(ctx)
	})
	parts.Go(func() error { return c.register(ctx) })
	parts.Go(func() error { return c.remember(ctx) })
	parts.Go(func() error { return c.stopping(ctx) })
	parts.Go(func() error { return c.heed(ctx) })
	parts.Go(func() error { return operate.Removals{Store: c.store, Peers: c.peers, Log: c.log}.Run(ctx) })
	return parts.Wait()
}

// stopping tells the others that this node will be back, unless the whole machine goes down.
func (c *cluster) stopping(ctx context.Context) error {
	<-ctx.Done()
	if !preflight.MachineStops() {
		c.peers.Stopping()
	}
	return nil
}

// waiting is how often a node that cannot start yet says what for.
const waiting = 10 * time.Second

// ready waits until this replica's memory is the present. What it remembers from before may be
// long over: nobody may act on it.
func (c *cluster) ready(ctx context.Context) error {
	for {
		try, cancel := context.WithTimeout(ctx, waiting)
		err := c.store.Ready(try)
		cancel()
		if err == nil || ctx.Err() != nil {
			return err
		}
		if errors.Is(err, state.ErrClosed) {
			return err
		}
		hint := "the other nodes are not reached yet"
		if c.host.cfg.OnQuorumLoss == freeze {
			hint = "a majority is needed with --on-quorum-loss=freeze; continue would go on without"
		}
		c.log.Warn("waiting for the swarm's state", "peers", c.known(), "hint", hint, "err", err)
	}
}

// remembered are the addresses that this node can think of without the state.
func (c *cluster) remembered() []string {
	addrs := c.host.me.peers()
	if c.host.cfg.Join != "" {
		addrs = append(addrs, joinAddr(c.host.cfg.Join))
	}
	return addrs
}

// known are the addresses of all other nodes that this one can think of.
func (c *cluster) known() []string {
	known := c.remembered()
	for _, n := range join.Nodes(c.store.View()) {
		known = append(known, n.Address)
	}
	slices.Sort(known)
	known = slices.Compact(known)
	return slices.DeleteFunc(known, func(a string) bool { return a == c.host.cfg.wireAddr() })
}

// register keeps the record of this node true: the first node makes its own, and addresses change.
func (c *cluster) register(ctx context.Context) error {
	if err := c.store.Ready(ctx); err != nil {
		return withoutCanceled(err)
	}
	cfg := c.host.cfg
	for delay := time.Second; ; delay = min(2*delay, time.Minute) {
		_, err := c.admitter.Enroll(ctx, cfg.NodeName, cfg.wireAddr(), c.cert.Certificate().Leaf.RawSubjectPublicKeyInfo, netip.MustParsePrefix(cfg.PodCIDR))
		if err == nil || ctx.Err() != nil {
			return withoutCanceled(ctx.Err())
		}
		c.log.Warn("register this node", "err", err)
		select {
		case <-time.After(delay):
		case <-ctx.Done():
		}
	}
}

// admit has newcomers admitted by this node, like by every other.
func (c *cluster) admit() {
	c.admitter = join.New(join.Config{
		Keys: c.keys, Store: c.store, PodRange: netip.MustParsePrefix(podRange), ServiceRange: netip.MustParsePrefix(c.host.cfg.ServiceCIDR),
		Release: version.Swarm(), Format: swarmFormat, Peers: c.living, Lineage: func() string { return c.store.Status().Lineage.ID },
		Log: c.host.log.With("part", "join"),
	})
	c.peers.Wire.Guests(peers.JoinProto, func(ctx context.Context, conn *wire.Conn) { c.admitter.Serve(ctx, conn) })
}

// living are the addresses of the nodes that are alive, this one's first.
func (c *cluster) living() []string {
	addrs := []string{c.host.cfg.wireAddr()}
	for _, m := range c.peers.Members() {
		if m.Alive() && m.Name != c.host.cfg.NodeName {
			addrs = append(addrs, m.Addr)
		}
	}
	return addrs
}

// nodeOf is the other node whose pods have an address.
func (c *cluster) nodeOf(pod netip.Addr) (string, bool) {
	if !netip.MustParsePrefix(podRange).Contains(pod) {
		return "", false
	}
	for _, n := range join.Nodes(c.store.View()) {
		if n.PodCIDR.Contains(pod) {
			return n.Name, true
		}
	}
	return "", false
}

// remember keeps the addresses of the others in a file, for a start at which the state is not there.
func (c *cluster) remember(ctx context.Context) error {
	for {
		changed := c.peers.Changed()
		addrs := c.living()[1:]
		slices.Sort(addrs)
		if err := c.host.me.meet(addrs); err != nil {
			c.log.Warn("remember the other nodes", "err", err)
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return nil
		}
	}
}

// refuse turns away a node that was removed: its certificate is in order, its name is not.
func (c *cluster) refuse(cert *x509.Certificate) error {
	store := c.opened.Load()
	if store == nil {
		return nil
	}
	return operate.RefuseRemoved(store.View(), cert, time.Now())
}

func (c *cluster) turnedAway(addr string) {
	select {
	case c.refusals <- addr:
	default:
	}
}

// heed ends with an error when another node says that this one was removed from the swarm.
func (c *cluster) heed(ctx context.Context) error {
	select {
	case addr := <-c.refusals:
		return fmt.Errorf("%w (the node at %s says so): to use this machine again, run: podman-swarm reset --yes, then join", errRemoved, addr)
	case <-ctx.Done():
		return nil
	}
}
