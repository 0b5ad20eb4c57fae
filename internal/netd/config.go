package netd

import (
	"context"
	"errors"
	"log/slog"
	"net"
	"net/netip"

	"github.com/podman-swarm/podman-swarm/internal/netd/wire"
)

// Errors a caller may want to tell apart; test with errors.Is.
var (
	// ErrExhausted says that every address of the pod range is in use.
	ErrExhausted = wire.ErrExhausted
	// ErrLost says that the helper is gone; Start again adopts everything.
	ErrLost = errors.New("the network helper is gone")
	// ErrNoPod says that no pod of that id has a network here.
	ErrNoPod = wire.ErrNoPod
)

const defaultMTU = 1420 // what the encrypted overlay carries in 1500

// Config describes the pod network of one node.
type Config struct {
	// Rootless: this process is an ordinary user's; the pod network gets a namespace of its own.
	Rootless bool
	// PodCIDR is this node's range, IPv4, /16 to /29. Its first address is the gateway.
	PodCIDR netip.Prefix
	// ClusterCIDR holds the ranges of all nodes; traffic that stays inside keeps its source
	// address. Zero means 10.244.0.0/16.
	ClusterCIDR netip.Prefix
	// RunDir is the node's own directory for what a boot may lose. It must be an absolute path.
	RunDir string
	// Helper is the command line of the helper, without its last arguments.
	Helper []string
	// MTU of pod links in bytes; zero means 1420.
	MTU int
	// Dial connects a published port to its pod; nil: DialContext of this Net. Who replaces a Net whose
	// helper is lost leads published ports to the new one by it.
	Dial func(ctx context.Context, network, addr string) (net.Conn, error)
	// Log receives what the helper has to say. Never nil.
	Log *slog.Logger
}

// Attachment is a pod's place in the network.
type Attachment struct {
	ID    string
	NetNS string // path for the container runtime, valid in Podman's mount namespace
	IP    netip.Addr
}

func (c Config) withDefaults() Config {
	if !c.ClusterCIDR.IsValid() {
		c.ClusterCIDR = netip.PrefixFrom(netip.AddrFrom4([4]byte{10, 244}), 16)
	}
	if c.MTU == 0 {
		c.MTU = defaultMTU
	}
	return c
}

func (c Config) validate() error {
	var errs []error
	if len(c.Helper) == 0 {
		errs = append(errs, errors.New("no helper command"))
	}
	if c.Log == nil {
		errs = append(errs, errors.New("no logger"))
	}
	errs = append(errs, c.setup().Validate())
	return errors.Join(errs...)
}

func (c Config) setup() wire.Setup {
	return wire.Setup{
		Rootless: c.Rootless, PodCIDR: c.PodCIDR, ClusterCIDR: c.ClusterCIDR,
		RunDir: c.RunDir, MTU: c.MTU,
	}
}

// Missing names each program the pod network needs on this host and does not find, one error with
// one line each; nil when all are there.
func Missing(rootless bool) error { return wire.Missing(rootless) }
