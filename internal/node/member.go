package node

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/podman-swarm/podman-swarm/internal/node/datadir"
)

const (
	firstPodCIDR     = "10.244.0.0/24"
	firstServiceCIDR = "10.43.0.0/16"
	wirePort         = "7946"
)

// self is the membership of a running node.
type self struct {
	file string
	mu   sync.Mutex
	m    datadir.Membership
}

func (s *self) is() datadir.Membership {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.m
}

// peers are the addresses of other nodes, as they were known last.
func (s *self) peers() []string { return slices.Clone(s.is().Peers) }

// meet remembers the addresses of others. Who is alone remembers whom it knew.
func (s *self) meet(addrs []string) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(addrs) == 0 || slices.Equal(addrs, s.m.Peers) {
		return nil
	}
	s.m.Peers = addrs
	return s.m.Save(s.file)
}

// leave notes that the node has left the swarm.
func (s *self) leave() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.m.Left = time.Now().UTC()
	return s.m.Save(s.file)
}

// agrees refuses a configuration that contradicts what the node already is, and fills in what was
// left open.
func agrees(m datadir.Membership, cfg Config) (Config, error) {
	var errs []error
	match := func(flag string, field *string, have string) {
		if *field == "" {
			*field = have
		}
		if *field != have {
			errs = append(errs, fmt.Errorf("--%s %q: %s belongs to a node with %q: leave the flag out, or use another --data-dir", flag, *field, cfg.DataDir, have))
		}
	}
	// The machine's name may change; the node's does not, and was said only if it is another one.
	if host, err := os.Hostname(); err == nil && cfg.NodeName == strings.ToLower(host) {
		cfg.NodeName = m.Name
	}
	if cfg.NodeName != m.Name {
		errs = append(errs, fmt.Errorf("--node-name %q: %s belongs to node %q: say --node-name %s, or use another --data-dir", cfg.NodeName, cfg.DataDir, m.Name, m.Name))
	}
	match("pod-cidr", &cfg.PodCIDR, m.PodCIDR)
	match("service-cidr", &cfg.ServiceCIDR, m.ServiceCIDR)
	return cfg, errors.Join(errs...)
}

// wireAddr is what other nodes are told to reach this one by.
func (c Config) wireAddr() string {
	return netip.AddrPortFrom(netip.MustParseAddr(c.AdvertiseAddr), netip.MustParseAddrPort(c.BindAddr).Port()).String()
}

// apiAddr is where other machines reach this node's API.
func (c Config) apiAddr() string {
	return netip.AddrPortFrom(netip.MustParseAddr(c.AdvertiseAddr), netip.MustParseAddrPort(c.APIAddr).Port()).String()
}

// joinAddr completes the address of --join with the usual port.
func joinAddr(addr string) string {
	if _, _, err := net.SplitHostPort(addr); err == nil {
		return addr
	}
	return net.JoinHostPort(addr, wirePort)
}
