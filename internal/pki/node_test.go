package pki

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"
)

// handshake lets x call y, both showing and demanding node certificates.
func handshake(x, y *NodeCert) error {
	serverName, _ := NodeName(y.Certificate().Leaf)
	side := func(n *NodeCert) *tls.Config {
		return &tls.Config{
			MinVersion: tls.VersionTLS13, Certificates: []tls.Certificate{*n.Certificate()},
			RootCAs: n.Roots(), ClientCAs: n.Roots(), ClientAuth: tls.RequireAndVerifyClientCert, ServerName: serverName,
		}
	}
	c, s := net.Pipe()
	defer c.Close()
	defer s.Close()
	server, client := tls.Server(s, side(y)), tls.Client(c, side(x))
	done := make(chan error, 1)
	go func() {
		err := server.Handshake()
		if err != nil {
			s.Close()
		}
		done <- err
	}()
	if err := client.Handshake(); err != nil {
		c.Close()
		<-done
		return err
	}
	return <-done
}

func mustNode(t *testing.T, a *Authority, name string, hosts ...string) *NodeCert {
	t.Helper()
	n, err := a.Node(name, hosts...)
	if err != nil {
		t.Fatal(err)
	}
	return n
}

func TestNodeCertificate(t *testing.T) {
	dir := t.TempDir()
	a := mustOpen(t, dir, time.Now())
	n := mustNode(t, a, "n2", "192.0.2.7", "n2.example")
	leaf := n.Certificate().Leaf
	for _, use := range []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth, x509.ExtKeyUsageServerAuth} {
		for _, host := range []string{"n2", "n2.example", "192.0.2.7"} {
			if _, err := leaf.Verify(x509.VerifyOptions{Roots: n.Roots(), DNSName: host, KeyUsages: []x509.ExtKeyUsage{use}}); err != nil {
				t.Errorf("%v as %s: %v", use, host, err)
			}
		}
	}
	if name, ok := NodeName(leaf); !ok || name != "n2" {
		t.Errorf("got node %q, %v", name, ok)
	}
	if life := leaf.NotAfter.Sub(leaf.NotBefore); life != nodeLife+skew {
		t.Errorf("lives %v", life)
	}
	if got := n.Certificate().Certificate; len(got) != 2 || string(got[1]) != string(a.ring().issuer.cert.Raw) {
		t.Error("the chain is not the certificate and its CA")
	}
	again := mustNode(t, mustOpen(t, dir, time.Now()), "n2", "192.0.2.7", "n2.example")
	if !again.Certificate().Leaf.Equal(leaf) {
		t.Error("a good certificate was replaced")
	}
	moved := mustNode(t, mustOpen(t, dir, time.Now()), "n2", "192.0.2.8")
	if moved.Certificate().Leaf.Equal(leaf) {
		t.Error("a certificate for old addresses was kept")
	}
	if err := handshake(again, moved); err != nil {
		t.Error(err)
	}
}

func TestNodeNameNeedsTheGroup(t *testing.T) {
	for name, tt := range map[string]struct {
		subject pkix.Name
		want    string
	}{
		"node":       {nodeSubject("a"), "a"},
		"no group":   {pkix.Name{CommonName: "system:node:a"}, ""},
		"user":       {pkix.Name{CommonName: "a", Organization: []string{"system:nodes"}}, ""},
		"empty name": {pkix.Name{CommonName: "system:node:", Organization: []string{"system:nodes"}}, ""},
	} {
		got, ok := NodeName(&x509.Certificate{Subject: tt.subject})
		if ok != (tt.want != "") || ok && got != tt.want {
			t.Errorf("%s: got %q, %v", name, got, ok)
		}
	}
}

func request(t *testing.T, subject pkix.Name, key any) []byte {
	t.Helper()
	der, err := x509.CreateCertificateRequest(rand.Reader, &x509.CertificateRequest{Subject: subject, DNSNames: []string{"evil.example"}}, key)
	if err != nil {
		t.Fatal(err)
	}
	return pem.EncodeToMemory(&pem.Block{Type: requestBlock, Bytes: der})
}

func ecKey(t *testing.T, c elliptic.Curve) *ecdsa.PrivateKey {
	t.Helper()
	key, err := ecdsa.GenerateKey(c, rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return key
}

func TestSignNode(t *testing.T) {
	a := mustOpen(t, t.TempDir(), time.Now())
	key := ecKey(t, elliptic.P256())
	good := request(t, nodeSubject("n1"), key)
	rsaKey, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	forged, _ := pem.Decode(good)
	forged.Bytes[len(forged.Bytes)-1] ^= 1
	admin := nodeSubject("n1")
	admin.Organization = append(admin.Organization, "system:masters")
	tests := map[string]struct {
		csr   []byte
		name  string
		hosts []string
		want  string // "" succeeds
	}{
		"good":           {good, "n1", []string{"192.0.2.1", "2001:db8::1", "n1.example"}, ""},
		"another's name": {good, "n2", nil, "want"},
		"more groups":    {request(t, admin, key), "n1", nil, "want"},
		"other curve":    {request(t, nodeSubject("n1"), ecKey(t, elliptic.P384())), "n1", nil, "P-256"},
		"RSA":            {request(t, nodeSubject("n1"), rsaKey), "n1", nil, "P-256"},
		"forged":         {pem.EncodeToMemory(forged), "n1", nil, "certificate request"},
		"not PEM":        {[]byte("x"), "n1", nil, "not one PEM"},
		"two":            {append(append([]byte(nil), good...), good...), "n1", nil, "not one PEM"},
		"too long":       {make([]byte, maxRequest+1), "n1", nil, "at most"},
		"bad node name":  {good, "N1", nil, "node name"},
		"wildcard":       {good, "n1", []string{"*.example"}, "neither"},
		"empty host":     {good, "n1", []string{""}, "neither"},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			data, err := a.SignNode(tt.csr, tt.name, tt.hosts)
			if tt.want != "" {
				if err == nil || !strings.Contains(err.Error(), tt.want) || strings.Contains(err.Error(), "\n") {
					t.Fatalf("got %v, want one line with %q", err, tt.want)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			cert, err := parseCert("", data)
			if err != nil {
				t.Fatal(err)
			}
			if cert.VerifyHostname("evil.example") == nil {
				t.Error("a name in the request was believed")
			}
			for _, h := range tt.hosts {
				if err := cert.VerifyHostname(h); err != nil {
					t.Error(err)
				}
			}
			if cert.IsCA || !key.PublicKey.Equal(cert.PublicKey) {
				t.Error("wrong certificate")
			}
		})
	}
}

// runs starts Run and stops it at the end of the test.
func runs(t *testing.T, n *NodeCert) {
	t.Helper()
	done := make(chan error, 1)
	go func() { done <- n.Run(t.Context()) }()
	t.Cleanup(func() {
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
}

func TestNodeCertIsRenewed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		dir := t.TempDir()
		a, err := Open(dir)
		if err != nil {
			t.Fatal(err)
		}
		n := mustNode(t, a, "n1")
		runs(t, n)
		first := n.Certificate().Leaf
		<-time.After(59 * 24 * time.Hour)
		synctest.Wait()
		if !n.Certificate().Leaf.Equal(first) {
			t.Error("renewed too early")
		}
		<-time.After(2 * 24 * time.Hour)
		synctest.Wait()
		second := n.Certificate().Leaf
		if second.Equal(first) || time.Until(second.NotAfter) < 88*24*time.Hour {
			t.Error("not renewed at two thirds")
		}
		if got, err := parseCert("", read(t, filepath.Join(dir, nodeCertName))); err != nil || !got.Equal(second) {
			t.Errorf("not the one on disk (%v)", err)
		}
		<-time.After(200 * 24 * time.Hour)
		synctest.Wait()
		if n.Certificate().Leaf.NotAfter.Before(time.Now()) {
			t.Error("expired while running")
		}
	})
}

// A machine starts with its clock far ahead, which then is set right: what was issued meanwhile is good for nobody.
func TestNodeCertOfTheFutureIsReplaced(t *testing.T) {
	for name, running := range map[string]bool{"while it runs": true, "at the next start": false} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				dir := t.TempDir()
				a, err := Open(dir)
				if err != nil {
					t.Fatal(err)
				}
				var ahead atomic.Int64
				ahead.Store(int64(200 * 24 * time.Hour))
				a.now = func() time.Time { return time.Now().Add(time.Duration(ahead.Load())) }
				n := mustNode(t, a, "n1")
				first := n.Certificate().Leaf
				if running {
					runs(t, n)
					ahead.Store(0)
					<-time.After(renewCheck + time.Minute)
					synctest.Wait()
				} else {
					n = mustNode(t, mustOpen(t, dir, time.Now()), "n1")
				}
				if got := n.Certificate().Leaf; got.Equal(first) || time.Now().Before(got.NotBefore) {
					t.Errorf("the certificate is still one that is valid from %s", got.NotBefore)
				}
			})
		})
	}
}

// A disk that cannot be written to does not end a node.
func TestNodeCertIsRenewedInMemory(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		dir := t.TempDir()
		a, err := Open(dir)
		if err != nil {
			t.Fatal(err)
		}
		n := mustNode(t, a, "n1")
		path := filepath.Join(dir, nodeCertName)
		if err := os.Remove(path); err != nil {
			t.Fatal(err)
		}
		if err := os.MkdirAll(filepath.Join(path, "in the way"), 0o700); err != nil {
			t.Fatal(err)
		}
		runs(t, n)
		<-time.After(60*24*time.Hour + 2*time.Hour)
		synctest.Wait()
		if time.Until(n.Certificate().Leaf.NotAfter) < 88*24*time.Hour {
			t.Error("not renewed")
		}
	})
}

func TestNodeCertEndsWhenItExpired(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		dir := t.TempDir()
		a, err := Open(dir)
		if err != nil {
			t.Fatal(err)
		}
		n := mustNode(t, a, "n1")
		path := filepath.Join(dir, nodeKeyName)
		if err := errors.Join(os.Remove(path), os.Mkdir(path, 0o700)); err != nil {
			t.Fatal(err)
		}
		start := time.Now()
		err = n.Run(t.Context())
		if err == nil || !strings.Contains(err.Error(), nodeKeyName) {
			t.Errorf("got %v, want the file that cannot be read", err)
		}
		if d := time.Since(start); d < nodeLife || d > nodeLife+time.Hour {
			t.Errorf("ended after %v", d)
		}
	})
}
