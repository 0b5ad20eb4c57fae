package node

import (
	"context"
	"errors"
	"net"
	"net/netip"
	"time"

	"github.com/podman-swarm/podman-swarm/internal/agent"
	"github.com/podman-swarm/podman-swarm/internal/agent/hollow"
	"github.com/podman-swarm/podman-swarm/internal/node/pair"
	"github.com/podman-swarm/podman-swarm/internal/podman"
)

// machine is what pods run on: this host's Podman, or nothing at all.
type machine struct {
	runtime agent.Runtime
	volumes agent.Volumes // nil: the agent makes them
	exits   func(ctx context.Context, fn func(podman.Exit)) error
	hollow  bool
	close   func()
}

// network is the pod network of a machine.
type network interface {
	agent.Network
	// Sysctls are what the pods' namespaces are set to.
	Sysctls() map[string]string
	run(ctx context.Context) error
	close()
}

const (
	runtimePodman = "podman"
	runtimeHollow = "hollow"
	// abandonTime bounds the end of a removed node's pods.
	abandonTime = time.Minute
)

func (c Config) hollow() bool { return c.Runtime == runtimeHollow }

func openMachine(ctx context.Context, h *host) (machine, error) {
	if h.cfg.hollow() {
		pretended := hollow.NewRuntime()
		h.log.Warn("pods of this node only pretend to run", "label", hollow.Label)
		return machine{runtime: pretended, volumes: hollow.Volumes{}, exits: pretended.WatchExits, hollow: true, close: func() {}}, nil
	}
	client, err := openPodman(ctx, h)
	if err != nil {
		return machine{}, err
	}
	// A service that stays leaves by itself when idle.
	return machine{runtime: client, close: func() { _ = client.Close() }}, nil
}

// abandon ends the pods here when err says that the node was removed: others run in their place.
func (m machine) abandon(ctx context.Context, h *host, err error) error {
	client, ok := m.runtime.(*podman.Client)
	if !ok || !errors.Is(err, errRemoved) {
		return err
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), abandonTime)
	defer cancel()
	return errors.Join(err, removePods(ctx, client, h.cfg.DataDir))
}

func (m machine) network(ctx context.Context, h *host) (network, error) {
	if m.hollow {
		return hollowNetwork{hollow.NewNetwork(netip.MustParsePrefix(h.cfg.PodCIDR))}, nil
	}
	return startNetwork(ctx, h)
}

// labels are what the Node object says beyond what every node's does.
func (m machine) labels() map[string]string {
	if m.hollow {
		return map[string]string{hollow.Label: "true"}
	}
	return nil
}

type hollowNetwork struct{ *hollow.Network }

func (hollowNetwork) Sysctls() map[string]string { return nil }

func (hollowNetwork) run(ctx context.Context) error { <-ctx.Done(); return nil }

func (hollowNetwork) close() {}

// dialer connects to pods, wherever they run, and to everything else from the host.
func (c *cluster) dialer(own network) func(ctx context.Context, network, addr string) (net.Conn, error) {
	mine := netip.MustParsePrefix(c.host.cfg.PodCIDR)
	return func(ctx context.Context, network, addr string) (net.Conn, error) {
		ap, err := netip.ParseAddrPort(addr)
		switch {
		case err != nil:
		case mine.Contains(ap.Addr()):
			return own.DialContext(ctx, network, addr)
		default:
			if node, ok := c.nodeOf(ap.Addr()); ok {
				return c.peers.DialPod(ctx, node, network, addr)
			}
		}
		return (&net.Dialer{}).DialContext(ctx, network, addr)
	}
}

// serveStreams has other nodes reach this node's agent and its pods.
func (c *cluster) serveStreams(ctx context.Context, own *pair.Listener, pods network) error {
	c.peers.AnswerDials(netip.MustParsePrefix(c.host.cfg.PodCIDR), pods.DialContext)
	theirs := c.peers.Streams()
	context.AfterFunc(ctx, func() { _ = theirs.Close() })
	for {
		conn, err := theirs.Accept()
		if err != nil {
			if errors.Is(err, net.ErrClosed) { // ctx ended
				err = nil
			}
			return err
		}
		if !own.Give(ctx, conn) {
			_ = conn.Close()
		}
	}
}

// nodeStreams reaches the agents of all nodes.
type nodeStreams struct {
	own *pair.Listener
	c   *cluster
}

// DialNode implements apiserver.NodeDialer.
func (n nodeStreams) DialNode(ctx context.Context, node string) (net.Conn, error) {
	if node == n.c.host.cfg.NodeName {
		return n.own.DialNode(ctx, node)
	}
	return n.c.peers.DialNode(ctx, node)
}
