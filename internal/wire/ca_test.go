package wire

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"math/big"
	"sync/atomic"
	"testing"
	"time"
)

// authority is a CA for tests.
type authority struct {
	tb   testing.TB
	cert *x509.Certificate
	key  *ecdsa.PrivateKey
}

func newCA(tb testing.TB) *authority {
	tb.Helper()
	a := &authority{tb: tb}
	tmpl := &x509.Certificate{
		Subject: pkix.Name{CommonName: "podman-swarm"}, IsCA: true, BasicConstraintsValid: true,
		KeyUsage: x509.KeyUsageCertSign | x509.KeyUsageDigitalSignature,
	}
	a.cert, a.key = a.sign(tmpl)
	return a
}

// sign issues what the template says, by itself when it has no certificate yet.
func (a *authority) sign(tmpl *x509.Certificate) (*x509.Certificate, *ecdsa.PrivateKey) {
	a.tb.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		a.tb.Fatal(err)
	}
	return a.signKey(tmpl, key), key
}

func (a *authority) signKey(tmpl *x509.Certificate, key *ecdsa.PrivateKey) *x509.Certificate {
	a.tb.Helper()
	var err error
	if tmpl.SerialNumber, err = rand.Int(rand.Reader, big.NewInt(1<<62)); err != nil {
		a.tb.Fatal(err)
	}
	if tmpl.NotAfter.IsZero() {
		tmpl.NotBefore, tmpl.NotAfter = time.Now().Add(-time.Hour), time.Now().Add(time.Hour)
	}
	parent, signer := a.cert, a.key
	if parent == nil {
		parent, signer = tmpl, key
	}
	der, err := x509.CreateCertificate(rand.Reader, tmpl, parent, key.Public(), signer)
	if err != nil {
		a.tb.Fatal(err)
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		a.tb.Fatal(err)
	}
	return cert
}

// renew issues a certificate like another one, for the same key: nodes keep theirs.
func (a *authority) renew(old *tls.Certificate) *tls.Certificate {
	key, ok := old.PrivateKey.(*ecdsa.PrivateKey)
	if !ok {
		a.tb.Fatalf("key of type %T", old.PrivateKey)
	}
	cert := a.signKey(&x509.Certificate{
		Subject: old.Leaf.Subject, DNSNames: old.Leaf.DNSNames, KeyUsage: x509.KeyUsageDigitalSignature, ExtKeyUsage: both(),
	}, key)
	return &tls.Certificate{Certificate: [][]byte{cert.Raw, a.cert.Raw}, PrivateKey: key, Leaf: cert}
}

func both() []x509.ExtKeyUsage {
	return []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth, x509.ExtKeyUsageServerAuth}
}

// node issues a node's certificate; change may spoil it.
func (a *authority) node(name string, change ...func(*x509.Certificate)) *tls.Certificate {
	tmpl := &x509.Certificate{
		Subject:  pkix.Name{CommonName: "system:node:" + name, Organization: []string{"system:nodes"}},
		DNSNames: []string{name}, KeyUsage: x509.KeyUsageDigitalSignature, ExtKeyUsage: both(),
	}
	for _, f := range change {
		f(tmpl)
	}
	cert, key := a.sign(tmpl)
	return &tls.Certificate{Certificate: [][]byte{cert.Raw, a.cert.Raw}, PrivateKey: key, Leaf: cert}
}

func (a *authority) pool() *x509.CertPool { return pool(a) }

func pool(cas ...*authority) *x509.CertPool {
	p := x509.NewCertPool()
	for _, a := range cas {
		p.AddCert(a.cert)
	}
	return p
}

// identity is a Trust that changes when the test says so.
type identity struct {
	cert  atomic.Pointer[tls.Certificate]
	roots atomic.Pointer[x509.CertPool]
}

func (i *identity) Certificate() *tls.Certificate { return i.cert.Load() }
func (i *identity) Roots() *x509.CertPool         { return i.roots.Load() }

func identify(cert *tls.Certificate, roots *x509.CertPool) *identity {
	i := &identity{}
	i.cert.Store(cert)
	i.roots.Store(roots)
	return i
}

// spoiled are certificates that are none of a peer, made by ca or by another one. The certificates of users
// and of kubelet-like clients are good ones, for something else.
func spoiled(ca, stranger *authority) map[string]*tls.Certificate {
	subject := func(cn string, groups ...string) func(*x509.Certificate) {
		return func(c *x509.Certificate) { c.Subject = pkix.Name{CommonName: cn, Organization: groups} }
	}
	return map[string]*tls.Certificate{
		"another CA": stranger.node("a"),
		"another CA with ours appended": func() *tls.Certificate {
			c := stranger.node("a")
			c.Certificate[1] = ca.cert.Raw
			return c
		}(),
		"expired": ca.node("a", func(c *x509.Certificate) {
			c.NotBefore, c.NotAfter = time.Now().Add(-2*time.Hour), time.Now().Add(-time.Hour)
		}),
		"not yet valid": ca.node("a", func(c *x509.Certificate) {
			c.NotBefore, c.NotAfter = time.Now().Add(time.Hour), time.Now().Add(2*time.Hour)
		}),
		"a user":            ca.node("", subject("admin", "system:masters")),
		"a user as a node":  ca.node("", subject("system:node:a", "system:masters")),
		"no group":          ca.node("", subject("system:node:a")),
		"one group more":    ca.node("", subject("system:node:a", "system:nodes", "system:masters")),
		"another name":      ca.node("", subject("node:a", "system:nodes")),
		"an empty name":     ca.node("", subject("system:node:", "system:nodes")),
		"a kubelet, client": ca.node("a", func(c *x509.Certificate) { c.ExtKeyUsage = both()[:1] }),
		"a kubelet, server": ca.node("a", func(c *x509.Certificate) { c.ExtKeyUsage = both()[1:] }),
		"no usage":          ca.node("a", func(c *x509.Certificate) { c.ExtKeyUsage = nil }),
		"signed by a node": func() *tls.Certificate {
			n := ca.node("b")
			key, ok := n.PrivateKey.(*ecdsa.PrivateKey)
			if !ok {
				ca.tb.Fatalf("key of type %T", n.PrivateKey)
			}
			c := (&authority{tb: ca.tb, cert: n.Leaf, key: key}).node("a")
			c.Certificate = append(c.Certificate, ca.cert.Raw)
			return c
		}(),
	}
}
