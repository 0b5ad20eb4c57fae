package node

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"reflect"
	"strings"

	"k8s.io/apimachinery/pkg/util/validation"
	"sigs.k8s.io/yaml"

	"github.com/podman-swarm/podman-swarm/internal/node/logs"
)

// Config is everything a node can be told. It is read from flags and from one YAML file whose keys
// are the JSON names below; a flag wins over the file, the file over the default.
type Config struct {
	// DataDir holds everything the node must not forget. Default: /var/lib/podman-swarm for root,
	// $XDG_DATA_HOME/podman-swarm (~/.local/share/podman-swarm) for other users.
	DataDir string `json:"dataDir,omitempty"`
	// NodeName is the name of the Node object. Default: the host name, in lower case.
	NodeName string `json:"nodeName,omitempty"`
	// APIAddr is where the Kubernetes API listens, as host:port. Default: 0.0.0.0:6443.
	APIAddr string `json:"apiAddr,omitempty"`
	// AdvertiseAddr is the address other machines and pods reach this node by. Default: the source
	// address of the default route, else the first global address, else 127.0.0.1.
	AdvertiseAddr string `json:"advertiseAddr,omitempty"`
	// BindAddr is where other nodes reach this one, as host:port, for TCP (everything, mutual TLS) and
	// UDP (gossip, encrypted). Its port goes with AdvertiseAddr. Default: 0.0.0.0:7946.
	BindAddr string `json:"bindAddr,omitempty"`
	// Join is the address (host or host:port) of any node of the swarm that an empty data directory
	// becomes a member of. Default: it begins a swarm of its own. Ignored by a node that has data.
	Join string `json:"join,omitempty"`
	// JoinToken is what `podman-swarm token create` printed; needed with Join.
	JoinToken string `json:"joinToken,omitempty"`
	// EncryptionKey is a file with 32 bytes in base64: the key of the gossip of a swarm that begins.
	// Default: a random one. Newcomers are given it when they join.
	EncryptionKey string `json:"encryptionKey,omitempty"`
	// TLSCert and TLSKey are a certificate for the Kubernetes API, in PEM, beside the swarm's own.
	// TLSCA is the authority that signed it, for kubeconfigs. Default: the swarm's own certificate.
	TLSCert string `json:"tlsCert,omitempty"`
	TLSKey  string `json:"tlsKey,omitempty"`
	TLSCA   string `json:"tlsCA,omitempty"`
	// OnQuorumLoss says what survivors of a lost majority do: continue (take over, merge later) or
	// freeze (read only until the majority is back). Default: continue.
	OnQuorumLoss string `json:"onQuorumLoss,omitempty"`
	// Runtime is podman, or hollow: pods that only pretend to run, to rehearse large swarms.
	// Default: podman.
	Runtime string `json:"runtime,omitempty"`
	// PodmanSocket is a libpod socket. Default: the user's own when it exists; otherwise the node
	// starts `podman system service` itself while there is something to do.
	PodmanSocket string `json:"podmanSocket,omitempty"`
	// PodCIDR is this node's range of pod addresses. Default: the lowest free /24 of 10.244.0.0/16,
	// given when the node joins.
	PodCIDR string `json:"podCIDR,omitempty"`
	// ServiceCIDR is the range of Service addresses. Default: 10.43.0.0/16.
	ServiceCIDR string `json:"serviceCIDR,omitempty"`
	// AuditPolicyFile is a Kubernetes audit policy (audit.k8s.io/v1). Default: no audit.
	AuditPolicyFile string `json:"auditPolicyFile,omitempty"`
	// AuditLogPath is the file audit events are appended to, "-" for standard output.
	AuditLogPath string `json:"auditLogPath,omitempty"`
	// LogLevel is debug, info, warn or error. Default: info.
	LogLevel string `json:"logLevel,omitempty"`
	// PprofAddr serves Go's profiles when set; use a loopback address. Default: off.
	PprofAddr string `json:"pprofAddr,omitempty"`
}

// LoadFile reads a configuration file. Unknown keys are errors.
func LoadFile(path string) (Config, error) {
	var c Config
	data, err := os.ReadFile(path)
	if err != nil {
		return c, fmt.Errorf("read configuration: %w", err)
	}
	if err := yaml.UnmarshalStrict(data, &c); err != nil {
		return c, fmt.Errorf("configuration %s: %w", path, errors.New(oneLine(err.Error())))
	}
	return c, nil
}

// Override returns c with every field that is set in flags taken from there.
func (c Config) Override(flags Config) Config {
	dst, src := reflect.ValueOf(&c).Elem(), reflect.ValueOf(flags)
	for i := range src.NumField() {
		if !src.Field(i).IsZero() {
			dst.Field(i).Set(src.Field(i))
		}
	}
	return c
}

func oneLine(s string) string { return strings.Join(strings.Fields(s), " ") }

// DefaultDataDir returns the data directory used when none is given.
func DefaultDataDir() string {
	if os.Geteuid() == 0 {
		return "/var/lib/podman-swarm"
	}
	if dir := os.Getenv("XDG_DATA_HOME"); dir != "" {
		return filepath.Join(dir, "podman-swarm")
	}
	home, err := os.UserHomeDir()
	if err != nil {
		return "" // Validate asks for --data-dir
	}
	return filepath.Join(home, ".local", "share", "podman-swarm")
}

// WithDefaults fills in what was left open.
func (c Config) WithDefaults() Config {
	set := func(field *string, value string) {
		if *field == "" {
			*field = value
		}
	}
	set(&c.DataDir, DefaultDataDir())
	if c.DataDir != "" {
		c.DataDir = filepath.Clean(c.DataDir) // its name is what this node's containers are known by
	}
	if host, err := os.Hostname(); err == nil {
		set(&c.NodeName, strings.ToLower(host))
	}
	set(&c.APIAddr, "0.0.0.0:6443")
	set(&c.AdvertiseAddr, advertiseAddr(c.APIAddr))
	set(&c.BindAddr, "0.0.0.0:"+wirePort)
	set(&c.OnQuorumLoss, "continue")
	set(&c.Runtime, runtimePodman)
	set(&c.LogLevel, "info")
	return c
}

// Validate reports everything that is wrong with a completed configuration, not only the first.
func (c Config) Validate() error {
	var errs []error
	bad := func(flag, value, why string) {
		errs = append(errs, fmt.Errorf("--%s %q: %s", flag, value, why))
	}
	if !filepath.IsAbs(c.DataDir) {
		bad("data-dir", c.DataDir, "must be an absolute path")
	}
	if msgs := validation.IsDNS1123Subdomain(c.NodeName); len(msgs) > 0 {
		bad("node-name", c.NodeName, msgs[0])
	}
	if _, err := netip.ParseAddrPort(c.APIAddr); err != nil {
		bad("api-addr", c.APIAddr, "must be ADDRESS:PORT, for example 0.0.0.0:6443")
	}
	if a, err := netip.ParseAddr(c.AdvertiseAddr); err != nil || a.IsUnspecified() {
		bad("advertise-addr", c.AdvertiseAddr, "must be an address of this machine")
	}
	c.validateSwarm(bad)
	if p, err := netip.ParsePrefix(c.PodCIDR); c.PodCIDR != "" && (err != nil || !p.Addr().Is4() || p.Bits() > 28 || p != p.Masked()) {
		bad("pod-cidr", c.PodCIDR, "must be an IPv4 network of at least 16 addresses, for example 10.244.0.0/24")
	}
	if p, err := netip.ParsePrefix(c.ServiceCIDR); c.ServiceCIDR != "" && (err != nil || !p.Addr().Is4() || p.Bits() > 24 || p != p.Masked()) {
		bad("service-cidr", c.ServiceCIDR, "must be an IPv4 network of at least 256 addresses, for example 10.43.0.0/16")
	}
	if _, ok := logs.Levels()[c.LogLevel]; !ok {
		bad("log-level", c.LogLevel, "must be debug, info, warn or error")
	}
	if c.AuditPolicyFile != "" && c.AuditLogPath == "" {
		bad("audit-policy-file", c.AuditPolicyFile, "needs --audit-log-path as well")
	}
	return errors.Join(errs...)
}

// validateSwarm reports what is wrong with the part about other nodes.
func (c Config) validateSwarm(bad func(flag, value, why string)) {
	if _, err := netip.ParseAddrPort(c.BindAddr); err != nil {
		bad("bind-addr", c.BindAddr, "must be ADDRESS:PORT, for example 0.0.0.0:"+wirePort)
	}
	if c.OnQuorumLoss != "continue" && c.OnQuorumLoss != freeze {
		bad("on-quorum-loss", c.OnQuorumLoss, "must be continue or freeze")
	}
	if c.Runtime != runtimePodman && c.Runtime != runtimeHollow {
		bad("runtime", c.Runtime, "must be podman or hollow")
	}
	if c.Join == "" && c.JoinToken != "" {
		bad("join-token", "...", "needs --join ADDRESS as well")
	}
	if (c.TLSCert == "") != (c.TLSKey == "") {
		bad("tls-cert", c.TLSCert, "--tls-cert and --tls-key go together")
	}
}

// advertiseAddr picks the address this machine is reached by. Nothing is sent: connecting a UDP
// socket only asks the kernel which source address it would use.
func advertiseAddr(apiAddr string) string {
	if ap, err := netip.ParseAddrPort(apiAddr); err == nil && !ap.Addr().IsUnspecified() {
		return ap.Addr().String()
	}
	if conn, err := net.DialUDP("udp4", nil, &net.UDPAddr{IP: net.IPv4(192, 0, 2, 1), Port: 9}); err == nil {
		defer conn.Close() //nolint:errcheck // nothing was sent
		if a, ok := conn.LocalAddr().(*net.UDPAddr); ok && !a.IP.IsLoopback() {
			return a.IP.String()
		}
	}
	if addrs, err := net.InterfaceAddrs(); err == nil {
		for _, a := range addrs {
			if n, ok := a.(*net.IPNet); ok && n.IP.To4() != nil && n.IP.IsGlobalUnicast() {
				return n.IP.String()
			}
		}
	}
	return "127.0.0.1"
}
