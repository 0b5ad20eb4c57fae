package apiserver

import (
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"net/netip"
	"os"
	"path/filepath"

	"github.com/podman-swarm/podman-swarm/internal/pki"
	"github.com/podman-swarm/podman-swarm/internal/state"
)

// Config is what a Server needs. Fields without a default are required.
type Config struct {
	// DataDir is the node's data directory; the server keeps files in DataDir/apiserver and
	// DataDir/openapi.
	DataDir string
	// Listen is the host:port to serve on; port 0 picks a free one.
	Listen string
	// Advertise is the address under which other nodes and pods reach this server. A loopback
	// address is not published in the endpoints of the `kubernetes` Service.
	Advertise netip.Addr
	// ServingHosts are further names and addresses for the serving certificate, beside localhost,
	// NodeName, Advertise and the names of the `kubernetes` Service.
	ServingHosts []string
	NodeName     string
	Log          *slog.Logger
	Store        *state.Store
	PKI          *pki.Authority
	// ServiceCIDR is where cluster IPs come from; its first address is the `kubernetes` Service.
	ServiceCIDR netip.Prefix
	// Refuse tells why the owner of a certificate that is in order may do nothing, as a node that was
	// removed; nil: everybody may what the certificate says.
	Refuse func(*x509.Certificate) error
	// Nodes reaches the agents of all nodes.
	Nodes NodeDialer
	// Dial opens connections to addresses of pods, for the proxy subresources, webhooks and
	// aggregated APIs. Default: the host's own network.
	Dial func(ctx context.Context, network, addr string) (net.Conn, error)
	// Extra are further handlers, by path prefix ("/swarm/v1/"), behind the server's authentication,
	// authorization (nonResourceURLs) and audit; see User. ExtraLong tells which of their requests
	// may take longer than a minute; nil: none.
	Extra     map[string]http.Handler
	ExtraLong func(*http.Request) bool
	// TLSCertFile and TLSKeyFile are a certificate that clients are shown who ask for one of its names,
	// beside the cluster's own. It is read again when the files change.
	TLSCertFile, TLSKeyFile string
	// AuditPolicyFile and AuditLogPath turn the audit log on when both are set; the path "-" is
	// standard output.
	AuditPolicyFile, AuditLogPath string
	// Version is this program's version, shown behind Kubernetes' own in /version.
	Version string
	// OpenAPICommand is the command line of a process that calls BuildOpenAPI; the directory is
	// appended. Default: this program with the arguments "openapi --out".
	OpenAPICommand []string

	// buildOpenAPI makes a server that can build the documents; only BuildOpenAPI sets it.
	buildOpenAPI bool
}

// NodeDialer opens connections to the agents of nodes.
type NodeDialer interface {
	// DialNode returns a connection on which the agent of node speaks the kubelet's API in
	// clear HTTP/1.1. The implementation vouches for who is at the other end.
	DialNode(ctx context.Context, node string) (net.Conn, error)
}

func (c *Config) complete() error {
	if c.Log == nil || c.PKI == nil || c.Nodes == nil {
		return errors.New("apiserver: Log, PKI and Nodes are required")
	}
	if !c.Advertise.IsValid() || !c.ServiceCIDR.IsValid() {
		return errors.New("apiserver: Advertise and ServiceCIDR are required")
	}
	if err := errors.Join(checkAudit(c.AuditPolicyFile, c.AuditLogPath), checkExtra(c.Extra)); err != nil {
		return err
	}
	if c.Dial == nil {
		c.Dial = (&net.Dialer{}).DialContext
	}
	if len(c.OpenAPICommand) == 0 {
		exe, err := os.Executable()
		if err != nil {
			return fmt.Errorf("find this program: %w", err)
		}
		c.OpenAPICommand = []string{exe, "openapi", "--out"}
	}
	return os.MkdirAll(c.dir(), 0o700)
}

func (c *Config) dir() string { return filepath.Join(c.DataDir, "apiserver") }

// servingHosts are the names of the serving certificate.
func (c *Config) servingHosts() []string {
	hosts := []string{
		"localhost", "127.0.0.1", "::1",
		"kubernetes", "kubernetes.default", "kubernetes.default.svc", "kubernetes.default.svc.cluster.local",
		c.ServiceCIDR.Masked().Addr().Next().String(), c.Advertise.String(), c.NodeName,
	}
	return append(hosts, c.ServingHosts...)
}
