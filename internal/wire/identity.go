package wire

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"
)

const (
	nodePrefix = "system:node:"
	nodesGroup = "system:nodes"
)

// nodeName reads the name of a node from its certificate. Clients of the Kubernetes API may hold certificates of
// the same CA with the same subject (upstream's signers for kubelets issue them), each for one end of a
// connection: only what serves both ends was made for peers.
func nodeName(cert *x509.Certificate) (string, error) {
	name, ok := strings.CutPrefix(cert.Subject.CommonName, nodePrefix)
	if !ok || name == "" || !slices.Equal(cert.Subject.Organization, []string{nodesGroup}) {
		return "", fmt.Errorf("certificate of %.100q is not a node's", cert.Subject)
	}
	for _, usage := range []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth, x509.ExtKeyUsageServerAuth} {
		if !slices.Contains(cert.ExtKeyUsage, usage) {
			return "", fmt.Errorf("certificate of %.100q is not for connections between nodes", cert.Subject)
		}
	}
	return name, nil
}

// checkChain verifies a node's certificate, the first of the chain, for use by the given end.
func checkChain(chain []*x509.Certificate, roots *x509.CertPool, usage x509.ExtKeyUsage, now time.Time) (string, error) {
	if len(chain) == 0 {
		return "", errors.New("no certificate was shown")
	}
	if roots == nil { // to the x509 package nil means the CAs of the operating system
		return "", errors.New("no CA is believed")
	}
	between := x509.NewCertPool()
	for _, c := range chain[1:] {
		between.AddCert(c)
	}
	if _, err := chain[0].Verify(x509.VerifyOptions{
		Roots: roots, Intermediates: between, KeyUsages: []x509.ExtKeyUsage{usage}, CurrentTime: now,
	}); err != nil {
		return "", fmt.Errorf("verify certificate of %.100q: %w", chain[0].Subject, brief{err})
	}
	return nodeName(chain[0])
}

// checkChain verifies the peer's chain by what is believed now.
func (w *Wire) checkChain(chain []*x509.Certificate, usage x509.ExtKeyUsage) (string, error) {
	return checkChain(chain, w.cfg.Trust.Roots(), usage, w.cfg.now())
}

// check verifies the peer's chain by what is believed now, and asks Refuse.
func (w *Wire) check(chain []*x509.Certificate, usage x509.ExtKeyUsage) (string, error) {
	name, err := w.checkChain(chain, usage)
	if err != nil {
		return "", err
	}
	if err := w.refuse(name, chain[0]); err != nil {
		return "", err
	}
	return name, nil
}

// refuse asks Refuse.
func (w *Wire) refuse(name string, cert *x509.Certificate) error {
	if w.cfg.Refuse == nil {
		return nil
	}
	if err := w.cfg.Refuse(cert); err != nil {
		return fmt.Errorf("node %s %w: %w", name, errUnwanted, err)
	}
	return nil
}

// brief is an error whose text a stranger had a part in: a certificate is as long as its owner likes.
type brief struct{ error }

const maxText = 500

func (e brief) Error() string {
	text := e.error.Error()
	if len(text) > maxText {
		text = strings.ToValidUTF8(text[:maxText], "") + "..."
	}
	return text
}

func (e brief) Unwrap() error { return e.error }

func (w *Wire) certificate() (*tls.Certificate, error) {
	c := w.cfg.Trust.Certificate()
	if c == nil {
		return nil, errors.New("this node has no certificate")
	}
	return c, nil
}

// serverConfig is for one accepted connection that will speak proto. The peer is told to name itself unless it
// is a guest; verify sees what it shows.
func (w *Wire) serverConfig(proto string, guest bool, verify func(tls.ConnectionState) error) *tls.Config {
	c := &tls.Config{
		MinVersion:             tls.VersionTLS13,
		NextProtos:             []string{proto},
		SessionTicketsDisabled: true, // a resumed session would skip what is believed by now
		GetCertificate:         func(*tls.ClientHelloInfo) (*tls.Certificate, error) { return w.certificate() },
	}
	if !guest {
		c.ClientAuth, c.VerifyConnection = tls.RequireAnyClientCert, verify
	}
	return c
}

// clientConfig is for one dialed connection.
func clientConfig(proto string, verify func(tls.ConnectionState) error) *tls.Config {
	return &tls.Config{
		MinVersion: tls.VersionTLS13,
		NextProtos: []string{proto},
		// Nodes are known by name, not by the host that was dialed: verify does the whole check.
		InsecureSkipVerify: true, // #nosec G402 -- see above
		VerifyConnection: func(s tls.ConnectionState) error {
			if s.NegotiatedProtocol != proto {
				return errors.New("no node of Podman Swarm answers there")
			}
			return verify(s)
		},
	}
}
