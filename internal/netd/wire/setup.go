package wire

import (
	"errors"
	"fmt"
	"net/netip"
	"path/filepath"
	"regexp"
)

// Errors that travel: what Failure makes of them AsError turns back into them.
var (
	ErrExhausted = errors.New("no free address in the pod range")
	ErrNoPod     = errors.New("no such pod in the pod network")
)

// HomeName is the file that pins the pod network's own namespace when rootless.
const HomeName = "_net"

// Setup is what the helper has to know.
type Setup struct {
	Rootless    bool         `json:"rootless,omitempty"`
	PodCIDR     netip.Prefix `json:"podCIDR"`
	ClusterCIDR netip.Prefix `json:"clusterCIDR"`
	RunDir      string       `json:"runDir"`
	MTU         int          `json:"mtu"`
}

// Validate reports everything that is wrong.
func (s Setup) Validate() error {
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

// Gateway is the first address of the range.
func (s Setup) Gateway() netip.Addr { return s.PodCIDR.Addr().Next() }

// Dir holds the pins: each namespace is pinned by a bind mount over a file of its own there.
func (s Setup) Dir() string { return filepath.Join(s.RunDir, "netns") }

// Path is the pin of a pod's namespace.
func (s Setup) Path(id string) string { return filepath.Join(s.Dir(), id) }

// Home is the pin of the pod network's own namespace when rootless.
func (s Setup) Home() string { return filepath.Join(s.Dir(), HomeName) }

// File is another file of the helper.
func (s Setup) File(name string) string { return filepath.Join(s.RunDir, "netd."+name) }

// LogFile is where the helper's own words go.
func LogFile(runDir string) string { return filepath.Join(runDir, "netd.log") }

var idPattern = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9.-]{0,62}$`)

// CheckID accepts what Kubernetes uses for UIDs, and nothing that means more than itself in a path.
func CheckID(id string) error {
	if !idPattern.MatchString(id) {
		return fmt.Errorf("pod id %q: want up to 63 letters, digits, dots and hyphens", id)
	}
	return nil
}
