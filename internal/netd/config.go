package netd

import (
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"path/filepath"
	"regexp"
)

// Errors a caller may want to tell apart; test with errors.Is.
var (
	// ErrExhausted says that every address of the pod range is in use.
	ErrExhausted = errors.New("no free address in the pod range")
	// ErrLost says that the helper is gone; Start again adopts everything.
	ErrLost = errors.New("the network helper is gone")
	// ErrNoPod says that no pod of that id has a network here.
	ErrNoPod = errors.New("no such pod in the pod network")
)

const (
	// device carries the gateway address; pods' host-side links share its prefix.
	device     = "psw0"
	linkPrefix = "psw"
	// table is the one nftables table of this package, of family ip.
	table = "podman-swarm"
	// homeName is the file that pins the pod network's own namespace when rootless.
	homeName = "_net"

	defaultMTU = 1420 // what the encrypted overlay carries in 1500
)

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
	errs = append(errs, c.setup().validate())
	return errors.Join(errs...)
}

func (c Config) setup() setup {
	return setup{
		Rootless: c.Rootless, PodCIDR: c.PodCIDR, ClusterCIDR: c.ClusterCIDR,
		RunDir: c.RunDir, MTU: c.MTU,
	}
}

// setup is the part of Config that the helper needs.
type setup struct {
	Rootless    bool         `json:"rootless,omitempty"`
	PodCIDR     netip.Prefix `json:"podCIDR"`
	ClusterCIDR netip.Prefix `json:"clusterCIDR"`
	RunDir      string       `json:"runDir"`
	MTU         int          `json:"mtu"`
}

func (s setup) validate() error {
	var errs []error
	switch {
	case !s.PodCIDR.Addr().Is4() || s.PodCIDR.Masked() != s.PodCIDR:
		errs = append(errs, fmt.Errorf("pod range %s is not an IPv4 range", s.PodCIDR))
	case s.PodCIDR.Bits() < 16 || s.PodCIDR.Bits() > 29:
		errs = append(errs, fmt.Errorf("pod range %s: its size must be /16 to /29", s.PodCIDR))
	case s.ClusterCIDR.Bits() > s.PodCIDR.Bits() || !s.ClusterCIDR.Contains(s.PodCIDR.Addr()):
		errs = append(errs, fmt.Errorf("pod range %s is outside the cluster's %s", s.PodCIDR, s.ClusterCIDR))
	}
	if !filepath.IsAbs(s.RunDir) {
		errs = append(errs, fmt.Errorf("run directory %q is not an absolute path", s.RunDir))
	}
	if len(s.RunDir) > 200 {
		errs = append(errs, fmt.Errorf("run directory %q is longer than 200 bytes", s.RunDir))
	}
	if s.MTU < 576 || s.MTU > 65535 {
		errs = append(errs, fmt.Errorf("mtu %d is not in 576..65535", s.MTU))
	}
	return errors.Join(errs...)
}

func (s setup) gateway() netip.Addr { return s.PodCIDR.Addr().Next() }

// Places below RunDir. A namespace is pinned by a bind mount over a file of dir().
func (s setup) dir() string             { return filepath.Join(s.RunDir, "netns") }
func (s setup) path(id string) string   { return filepath.Join(s.dir(), id) }
func (s setup) home() string            { return filepath.Join(s.dir(), homeName) }
func (s setup) file(name string) string { return filepath.Join(s.RunDir, "netd."+name) }
func logFile(runDir string) string      { return filepath.Join(runDir, "netd.log") }

var idPattern = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9.-]{0,62}$`)

func checkID(id string) error {
	if !idPattern.MatchString(id) {
		return fmt.Errorf("pod id %q: want up to 63 letters, digits, dots and hyphens", id)
	}
	return nil
}
