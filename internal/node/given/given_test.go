package given

import (
	"bytes"
	"encoding/base64"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/podman-swarm/podman-swarm/internal/pki"
)

func file(t *testing.T, name string, content []byte) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), name)
	if err := os.WriteFile(path, content, 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

func wantLine(t *testing.T, err error, want string) {
	t.Helper()
	if err == nil || !strings.Contains(err.Error(), want) || strings.Contains(err.Error(), "\n") {
		t.Errorf("error %v, want one line with %q", err, want)
	}
}

func TestGossipKey(t *testing.T) {
	want := bytes.Repeat([]byte{7}, 32)
	key, err := GossipKey(file(t, "key", []byte(base64.StdEncoding.EncodeToString(want)+"\n")))
	if err != nil || !bytes.Equal(key, want) {
		t.Errorf("key %x, %v", key, err)
	}
	if key, err := GossipKey(""); key != nil || err != nil {
		t.Errorf("without a file: %x, %v", key, err)
	}
	_, err = GossipKey(filepath.Join(t.TempDir(), "none"))
	wantLine(t, err, "--encryption-key: open ")
	for _, bad := range []string{"", "AAAA", "not base64", base64.StdEncoding.EncodeToString(want[:31])} {
		_, err = GossipKey(file(t, "key", []byte(bad)))
		wantLine(t, err, "does not hold 32 bytes in base64: make one with: openssl rand -base64 32")
	}
}

func TestPair(t *testing.T) {
	a, err := pki.Open(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	cert, key, err := a.ServerCert("swarm.example.org")
	if err != nil {
		t.Fatal(err)
	}
	certFile, keyFile := file(t, "crt", cert), file(t, "key", key)
	if err := Pair(certFile, keyFile); err != nil {
		t.Error(err)
	}
	if err := Pair("", ""); err != nil {
		t.Error(err)
	}
	_, other, err := a.ServerCert("swarm.example.org")
	if err != nil {
		t.Fatal(err)
	}
	wantLine(t, Pair(certFile, file(t, "key", other)), "private key does not match")
	wantLine(t, Pair(certFile, filepath.Join(t.TempDir(), "none")), "no such file")
	nameless, key, err := a.ServerCert()
	if err != nil {
		t.Fatal(err)
	}
	wantLine(t, Pair(file(t, "crt", nameless), file(t, "key", key)), "no subjectAltName")
}

func TestCAs(t *testing.T) {
	a, err := pki.Open(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	got, err := CAs(file(t, "ca", append([]byte("# ours\n"), a.CAPEM()...)))
	if err != nil || !bytes.Equal(got, a.CAPEM()) {
		t.Errorf("%s, %v", got, err)
	}
	if got, err := CAs(""); got != nil || err != nil {
		t.Errorf("without a file: %s, %v", got, err)
	}
	_, key, err := a.ServerCert("x")
	if err != nil {
		t.Fatal(err)
	}
	_, err = CAs(file(t, "ca", key))
	wantLine(t, err, "only certificates belong there")
	_, err = CAs(file(t, "ca", []byte("hello")))
	wantLine(t, err, "holds no certificate in PEM")
	_, err = CAs(file(t, "ca", []byte("-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n")))
	wantLine(t, err, "malformed certificate")
}
