package join

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"errors"
	"math/big"
	"net"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/podman-swarm/podman-swarm/internal/pki"
	"github.com/podman-swarm/podman-swarm/internal/wire"
)

// dated is a node whose certificates are valid around another time than ours.
type dated struct{ cert *tls.Certificate }

func (d dated) Certificate() *tls.Certificate { return d.cert }
func (d dated) Roots() *x509.CertPool         { return x509.NewCertPool() }

func newDated(t *testing.T, at time.Time) dated {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	ca := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "podman-swarm"}, NotBefore: at.Add(-time.Hour), NotAfter: at.Add(time.Hour),
		IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign,
	}
	node := &x509.Certificate{
		SerialNumber: big.NewInt(2), Subject: pkix.Name{CommonName: "system:node:n1", Organization: []string{"system:nodes"}},
		NotBefore: at.Add(-5 * time.Minute), NotAfter: at.Add(time.Hour),
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth, x509.ExtKeyUsageServerAuth},
	}
	var chain [][]byte
	for _, c := range []*x509.Certificate{node, ca} {
		der, err := x509.CreateCertificate(rand.Reader, c, ca, key.Public(), key)
		if err != nil {
			t.Fatal(err)
		}
		chain = append(chain, der)
	}
	return dated{&tls.Certificate{Certificate: chain, PrivateKey: key}}
}

// TestWrongClockIsNamed over the connection that newcomers really have: it verifies what it is shown too.
func TestWrongClockIsNamed(t *testing.T) {
	for name, off := range map[string]time.Duration{
		"a little behind": 10 * time.Minute, "behind": 3 * time.Hour, "far behind": 400 * 24 * time.Hour, "ahead": -3 * time.Hour,
	} {
		t.Run(name, func(t *testing.T) {
			node := newDated(t, time.Now().Add(off))
			w, err := wire.Listen(t.Context(), wire.Config{Addr: "127.0.0.1:0", Trust: node})
			if err != nil {
				t.Fatal(err)
			}
			defer w.Close()
			w.Guests(Protocol, func(context.Context, *wire.Conn) { t.Error("was told something") })
			token := pki.NewToken(sha256.Sum256(node.cert.Certificate[1]))
			_, err = Join(t.Context(), Newcomer{
				Token: token.String(), Nodes: []string{w.Addr().String()}, Dir: filepath.Join(t.TempDir(), "pki"), Name: "n2", Address: "192.0.2.2:7946",
				Dial: func(ctx context.Context, addr string, verify func([]*x509.Certificate) error) (net.Conn, error) {
					return wire.DialGuest(ctx, addr, Protocol, verify)
				},
			})
			var refusal *Refusal
			if !errors.As(err, &refusal) || refusal.Reason != Clock || !strings.Contains(refusal.Text, "set the clock") {
				t.Errorf("err = %v, want what to do about the clock", err)
			}
		})
	}
}
