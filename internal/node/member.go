package node

import (
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/podman-swarm/podman-swarm/internal/pki"
)

// membership is what makes this data directory the node it is, in DIR/member.json. What the swarm
// knows of its nodes is in the store; this is what must be known before the store can be opened.
type membership struct {
	Format int `json:"format"`
	// Cluster names the swarm.
	Cluster string `json:"cluster"`
	// Name is this node's.
	Name string `json:"name"`
	// PodCIDR is this node's range, ServiceCIDR the swarm's.
	PodCIDR     string `json:"podCIDR"`
	ServiceCIDR string `json:"serviceCIDR"`
	// Lineage is the history of the state to join when there is none in this directory yet; empty
	// for the node that began the swarm.
	Lineage string `json:"lineage,omitempty"`
	// Peers are addresses of other nodes, as they were known last.
	Peers []string `json:"peers,omitempty"`
	// Left says when the node left the swarm: its data is of no use any more.
	Left time.Time `json:"left,omitzero"`
}

const (
	memberFile       = "member.json"
	memberFormat     = 1
	firstPodCIDR     = "10.244.0.0/24"
	firstServiceCIDR = "10.43.0.0/16"
	wirePort         = "7946"
)

// loadMembership reads the file; ok is false when there is none.
func loadMembership(file string) (m membership, ok bool, err error) {
	data, err := os.ReadFile(file) //nolint:gosec // our own directory
	if errors.Is(err, os.ErrNotExist) {
		return m, false, nil
	}
	if err == nil {
		err = json.Unmarshal(data, &m)
	}
	if err != nil {
		return m, false, fmt.Errorf("%s is damaged: %w: restore the file from a backup of the data directory", file, err)
	}
	if m.Format > memberFormat {
		return m, false, fmt.Errorf("%s was written by a newer release (format %d, this one reads up to %d): run that release or a newer one", file, m.Format, memberFormat)
	}
	return m, true, nil
}

// self is the membership of a running node.
type self struct {
	file string
	mu   sync.Mutex
	m    membership
}

func (s *self) is() membership {
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
	return s.m.save(s.file)
}

// leave notes that the node has left the swarm.
func (s *self) leave() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.m.Left = time.Now().UTC()
	return s.m.save(s.file)
}

func (m membership) save(file string) error {
	m.Format = memberFormat
	data, err := json.MarshalIndent(m, "", "  ")
	if err != nil {
		return fmt.Errorf("write %s: %w", file, err)
	}
	return pki.WriteFile(file, append(data, '\n'))
}

// agrees refuses a configuration that contradicts what the node already is, and fills in what was
// left open.
func (m membership) agrees(cfg Config) (Config, error) {
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
