package pki

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"fmt"
	"net"
	"slices"
	"strings"
	"sync/atomic"
	"time"
)

const (
	nodeUserPrefix = "system:node:"
	nodeGroup      = "system:nodes"
	nodeCertName   = "node.crt"
	nodeLife       = 90 * 24 * time.Hour
	requestBlock   = "CERTIFICATE REQUEST"
	maxRequest     = 16 << 10
	maxHosts       = 64

	// renewCheck bounds how long the clock is not looked at: timers stand still while a machine sleeps.
	renewCheck = time.Hour
	renewRetry = 5 * time.Minute
)

// NodeCert is the certificate that a node shows to its peers, and whom it believes. It follows
// renewals and rotations while Run runs.
type NodeCert struct {
	keys *Authority
	want *x509.Certificate
	cert atomic.Pointer[tls.Certificate]
}

// Node loads the certificate of the node called name, for client and server, or issues it. hosts
// are the DNS names and addresses it may be called by besides its name.
func (a *Authority) Node(name string, hosts ...string) (*NodeCert, error) {
	want, err := nodeTemplate(name, hosts)
	if err != nil {
		return nil, err
	}
	n := &NodeCert{keys: a, want: want}
	return n, n.load()
}

// Certificate returns the certificate and, behind it, the CA that issued it: a newcomer knows
// that by its hash.
func (n *NodeCert) Certificate() *tls.Certificate { return n.cert.Load() }

// Roots returns the CAs that are believed now.
func (n *NodeCert) Roots() *x509.CertPool { return n.keys.ring().pool }

// Run renews the certificate when a third of its life is left, another CA issues or the clock was set
// back to before its begin, until ctx ends. It fails when it expired and could not be renewed.
func (n *NodeCert) Run(ctx context.Context) error {
	retry := false
	for {
		changed := n.keys.Changed()
		wait := n.untilRenewal()
		if retry {
			wait = max(wait, renewRetry)
		}
		timer := time.NewTimer(wait)
		select {
		case <-ctx.Done():
			timer.Stop()
			return nil
		case <-changed:
			timer.Stop()
		case <-timer.C:
		}
		err := n.load()
		if err != nil && n.keys.now().After(n.Certificate().Leaf.NotAfter) {
			return fmt.Errorf("renew the node's certificate: %w", err)
		}
		retry = err != nil
	}
}

func (n *NodeCert) untilRenewal() time.Duration {
	leaf := n.Certificate().Leaf
	at := leaf.NotAfter.Add(-leaf.NotAfter.Sub(leaf.NotBefore) / 3)
	return min(max(at.Sub(n.keys.now()), 0)+time.Second, renewCheck)
}

// load takes the certificate on disk when it is good and makes a new one when it is not. One that
// cannot be written is used all the same.
func (n *NodeCert) load() error {
	n.keys.mu.Lock()
	defer n.keys.mu.Unlock()
	issuer := n.keys.ring().issuer
	data, key, err := n.keys.ensure(issuer, n.keys.path(nodeCertName), n.keys.path(nodeKeyName), n.want, nodeLife)
	if data == nil {
		return err
	}
	leaf, perr := parseCert(nodeCertName, data)
	if perr != nil {
		return errors.Join(err, perr)
	}
	n.cert.Store(&tls.Certificate{Certificate: [][]byte{leaf.Raw, issuer.cert.Raw}, PrivateKey: key, Leaf: leaf})
	return err
}

// NodeName returns the name of the node that cert was issued to. The caller has verified cert.
func NodeName(cert *x509.Certificate) (string, bool) {
	name, ok := strings.CutPrefix(cert.Subject.CommonName, nodeUserPrefix)
	return name, ok && name != "" && slices.Contains(cert.Subject.Organization, nodeGroup)
}

// NewNodeKey makes a key and returns it in PEM.
func NewNodeKey() ([]byte, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, fmt.Errorf("make key: %w", err)
	}
	return encodeKey(key)
}

// NodeRequest returns a request for a certificate of the node called name, in PEM, signed by key.
func NodeRequest(name string, keyPEM []byte) ([]byte, error) {
	key, err := parseKey(nodeKeyName, keyPEM)
	if err != nil {
		return nil, err
	}
	der, err := x509.CreateCertificateRequest(rand.Reader, &x509.CertificateRequest{Subject: nodeSubject(name)}, key)
	if err != nil {
		return nil, fmt.Errorf("request a certificate for %s: %w", name, err)
	}
	return pem.EncodeToMemory(&pem.Block{Type: requestBlock, Bytes: der}), nil
}

// ParseNodeRequest reads a request that proves possession of an ECDSA P-256 key and asks to be the
// node called name. It returns that key, encoded (PKIX).
func ParseNodeRequest(csrPEM []byte, name string) ([]byte, error) {
	_, der, err := parseRequest(csrPEM, name)
	return der, err
}

func parseRequest(csrPEM []byte, name string) (*ecdsa.PublicKey, []byte, error) {
	if len(csrPEM) > maxRequest {
		return nil, nil, fmt.Errorf("certificate request of %d bytes, at most %d are allowed", len(csrPEM), maxRequest)
	}
	block, rest := pem.Decode(csrPEM)
	if block == nil || block.Type != requestBlock || len(strings.TrimSpace(string(rest))) > 0 {
		return nil, nil, fmt.Errorf("certificate request: not one PEM %q", requestBlock)
	}
	csr, err := x509.ParseCertificateRequest(block.Bytes)
	if err != nil {
		return nil, nil, fmt.Errorf("certificate request: %w", err)
	}
	key, ok := csr.PublicKey.(*ecdsa.PublicKey)
	if !ok || key.Curve != elliptic.P256() {
		return nil, nil, errors.New("certificate request: the key is not ECDSA P-256")
	}
	if err := csr.CheckSignature(); err != nil {
		return nil, nil, fmt.Errorf("certificate request: %w", err)
	}
	if got, want := csr.Subject.String(), nodeSubject(name).String(); got != want {
		return nil, nil, fmt.Errorf("certificate request for %q, want %q", got, want)
	}
	return key, csr.RawSubjectPublicKeyInfo, nil
}

// SignNode issues the certificate of the node called name, which hosts lead to, for the key of a
// request. Nothing else of the request is used.
func (a *Authority) SignNode(csrPEM []byte, name string, hosts []string) ([]byte, error) {
	t, err := nodeTemplate(name, hosts)
	if err != nil {
		return nil, err
	}
	key, _, err := parseRequest(csrPEM, name)
	if err != nil {
		return nil, err
	}
	return a.ring().issuer.issue(t, key, a.now(), nodeLife)
}

func nodeSubject(name string) pkix.Name {
	return pkix.Name{CommonName: nodeUserPrefix + name, Organization: []string{nodeGroup}}
}

func nodeTemplate(name string, hosts []string) (*x509.Certificate, error) {
	if err := CheckNodeName(name); err != nil {
		return nil, err
	}
	if len(hosts) > maxHosts {
		return nil, fmt.Errorf("certificate for %s: %d names, at most %d are allowed", name, len(hosts), maxHosts)
	}
	all := []string{name}
	for _, h := range hosts {
		if net.ParseIP(h) == nil && !validHost(h) {
			return nil, fmt.Errorf("certificate for %s: %q is neither an address nor a host name", name, h)
		}
		if !slices.Contains(all, h) {
			all = append(all, h)
		}
	}
	t := server(all)
	t.Subject = nodeSubject(name)
	t.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth, x509.ExtKeyUsageServerAuth}
	return t, nil
}

// CheckNodeName refuses what cannot be the name of a Kubernetes node.
func CheckNodeName(name string) error {
	if len(name) > 253 || !validHost(name) || name != strings.ToLower(name) {
		return fmt.Errorf("node name %.253q: must be lower case letters, digits, '-' and '.', at most 253, like a host name", name)
	}
	return nil
}

// validHost accepts DNS names without wildcards (RFC 1123).
func validHost(s string) bool {
	if len(s) > 253 {
		return false
	}
	for label := range strings.SplitSeq(s, ".") {
		if label == "" || len(label) > 63 || label[0] == '-' || label[len(label)-1] == '-' ||
			strings.Trim(label, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-") != "" {
			return false
		}
	}
	return true
}
