package pki

import (
	"bytes"
	"crypto/tls"
	"crypto/x509"
	"encoding/base64"
	"errors"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
)

// second makes another node of a's cluster.
func second(t *testing.T, a *Authority, now time.Time) *Authority {
	t.Helper()
	dir := filepath.Join(t.TempDir(), "pki")
	if err := InstallBundle(dir, a.Bundle()); err != nil {
		t.Fatal(err)
	}
	return mustOpen(t, dir, now)
}

func TestInstalledDirectoryIsTheSame(t *testing.T) {
	a := mustOpen(t, t.TempDir(), time.Now())
	b := second(t, a, time.Now())
	if diff := cmp.Diff(contents(t, a.dir), contents(t, b.dir)); diff != "" {
		t.Error(diff)
	}
	if !bytes.Equal(a.Bundle(), b.Bundle()) || a.Cluster() != b.Cluster() || b.Generation() != 1 {
		t.Error("not the same keys")
	}
	sealed := a.Seal([]byte("secret"))
	if bytes.Contains(sealed, []byte("secret")) || bytes.Equal(sealed, a.Seal([]byte("secret"))) {
		t.Error("not sealed")
	}
	if got, err := b.Unseal(sealed); err != nil || string(got) != "secret" {
		t.Errorf("got %q, %v", got, err)
	}
	for i := range sealed {
		sealed[i] ^= 1
		if _, err := b.Unseal(sealed); err == nil {
			t.Fatalf("byte %d changed unnoticed", i)
		}
		sealed[i] ^= 1
	}
	if _, err := mustOpen(t, t.TempDir(), time.Now()).Unseal(sealed); err == nil {
		t.Error("another cluster reads it")
	}
}

func TestInstallIsAllOrNothing(t *testing.T) {
	a := mustOpen(t, t.TempDir(), time.Now())
	parent := t.TempDir()
	dir := filepath.Join(parent, "pki")
	b := a.Bundle()
	if err := InstallBundle(dir, b[:len(b)-2]); err == nil {
		t.Error("installed half a bundle")
	}
	if err := InstallBundle(filepath.Join(parent, "no", "pki"), b); err == nil {
		t.Error("made a directory above")
	}
	key, err := NewNodeKey()
	if err != nil {
		t.Fatal(err)
	}
	other, err := NewNodeKey()
	if err != nil {
		t.Fatal(err)
	}
	csr, err := NodeRequest("n1", key)
	if err != nil {
		t.Fatal(err)
	}
	cert, err := a.SignNode(csr, "n1", nil)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := StageNode(dir, b, cert, other); err == nil {
		t.Error("staged another's key")
	}
	if _, err := StageNode(dir, mustOpen(t, t.TempDir(), time.Now()).Bundle(), cert, key); err == nil {
		t.Error("staged a certificate of another cluster")
	}
	s, err := StageNode(dir, b, cert, key)
	if err != nil {
		t.Fatal(err)
	}
	if err := s.Discard(); err != nil {
		t.Fatal(err)
	}
	if left, err := os.ReadDir(parent); err != nil || len(left) != 0 {
		t.Errorf("left over: %v, %v", left, err)
	}
	if _, err := StageNode(dir, b, cert, key); err != nil { // a crash here leaves it
		t.Fatal(err)
	}
	if s, err = StageNode(dir, b, cert, key); err != nil {
		t.Fatal(err)
	}
	if err := s.Commit(); err != nil {
		t.Fatal(err)
	}
	if left, err := os.ReadDir(parent); err != nil || len(left) != 1 {
		t.Errorf("left over: %v, %v", left, err)
	}
	n := mustNode(t, mustOpen(t, dir, time.Now()), "n1")
	if !bytes.Equal(cert, encodeCert(n.Certificate().Leaf.Raw)) {
		t.Error("the certificate that was received is not used")
	}
	if err := InstallBundle(dir, b); err == nil || !strings.Contains(err.Error(), "leave") {
		t.Errorf("got %v, want a refusal to replace keys", err)
	}
}

// A directory of the release before clusters has no shared keys.
func TestOpenOldDirectory(t *testing.T) {
	dir := t.TempDir()
	a := mustOpen(t, dir, time.Now())
	if _, _, err := a.Serving("localhost"); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{sharedName, issuerName, sumsName} {
		if err := os.Remove(filepath.Join(dir, name)); err != nil {
			t.Fatal(err)
		}
	}
	before := contents(t, dir)
	b := mustOpen(t, dir, time.Now())
	after := contents(t, dir)
	for name, data := range before {
		if after[name] != data {
			t.Errorf("%s was changed", name)
		}
	}
	if len(after) != len(before)+3 || b.Generation() != 1 || b.Cluster() == a.Cluster() {
		t.Errorf("got %v, generation %d", slices.Sorted(maps.Keys(after)), b.Generation())
	}
	// A cluster's node whose shared keys are gone must not make others.
	mustNode(t, b, "n1")
	unsum(t, dir)
	if err := os.Remove(filepath.Join(dir, sharedName)); err != nil {
		t.Fatal(err)
	}
	if _, err := Open(dir); err == nil || !strings.Contains(err.Error(), sharedName) {
		t.Errorf("got %v, want the lost file", err)
	}
}

func TestOpenDamagedShared(t *testing.T) {
	good := t.TempDir()
	a := mustOpen(t, good, time.Now())
	unsum(t, good)
	text := string(read(t, filepath.Join(good, sharedName)))
	for name, tt := range map[string]struct{ file, data, want string }{
		"not JSON":       {sharedName, text[:len(text)/2], sharedName},
		"newer":          {sharedName, strings.Replace(text, `"format":1`, `"format":2`, 1), "newer"},
		"no generation":  {sharedName, strings.Replace(text, `"generation":1`, `"generation":0`, 1), "incomplete"},
		"other next key": {nextKeyName, string(read(t, a.FrontProxyCAFile()[:len(a.FrontProxyCAFile())-3]+"key")), nextKeyName},
		"damaged update": {journalName, "{", journalName},
	} {
		dir := t.TempDir()
		if err := os.CopyFS(dir, os.DirFS(good)); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(dir, tt.file), []byte(tt.data), 0o600); err != nil {
			t.Fatal(err)
		}
		if _, err := Open(dir); err == nil || !strings.Contains(err.Error(), tt.want) || strings.Contains(err.Error(), "\n") {
			t.Errorf("%s: got %v, want one line with %q", name, err, tt.want)
		}
	}
}

func mustRotate(t *testing.T, rotate func() ([]byte, error)) []byte {
	t.Helper()
	b, err := rotate()
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func mustUpdate(t *testing.T, a *Authority, b []byte) {
	t.Helper()
	if err := a.Update(b); err != nil {
		t.Fatal(err)
	}
}

// A crash at any point of an update leaves what the next Open completes.
func TestUpdateAfterCrash(t *testing.T) {
	a := mustOpen(t, t.TempDir(), time.Now())
	mustUpdate(t, a, mustRotate(t, a.RotateCA))
	mustUpdate(t, a, mustRotate(t, a.RotateGossipKey))
	before := contents(t, a.dir)
	next := mustRotate(t, a.RotateCA)
	if diff := cmp.Diff(before, contents(t, a.dir)); diff != "" {
		t.Fatalf("a rotation that nobody was told of changed files:\n%s", diff)
	}
	mustUpdate(t, a, next)
	after := contents(t, a.dir)
	names := slices.Sorted(maps.Keys(after))
	for written := range len(names) + 1 {
		dir := t.TempDir()
		files := maps.Clone(before)
		files[journalName] = string(next)
		for _, name := range names[:written] {
			files[name] = after[name]
		}
		for name, data := range files {
			if err := os.WriteFile(filepath.Join(dir, name), []byte(data), 0o600); err != nil {
				t.Fatal(err)
			}
		}
		b := mustOpen(t, dir, time.Now())
		if diff := cmp.Diff(after, contents(t, dir)); diff != "" || !bytes.Equal(b.Bundle(), a.Bundle()) {
			t.Fatalf("after %d files:\n%s", written, diff)
		}
	}
}

func TestUpdateThatCannotBeWritten(t *testing.T) {
	a := mustOpen(t, t.TempDir(), time.Now())
	next := mustRotate(t, a.RotateCA)
	if err := os.MkdirAll(filepath.Join(a.dir, nextKeyName, "in the way"), 0o700); err != nil {
		t.Fatal(err)
	}
	changed := a.Changed()
	if err := a.Update(next); err == nil {
		t.Fatal("no error")
	}
	select {
	case <-changed:
		t.Error("told of a change")
	default:
	}
	if a.Generation() != 1 {
		t.Error("half an update is in use")
	}
	if err := os.RemoveAll(filepath.Join(a.dir, nextKeyName)); err != nil {
		t.Fatal(err)
	}
	mustUpdate(t, a, next)
	<-changed
	if b := mustOpen(t, a.dir, time.Now()); b.Generation() != 2 || !bytes.Equal(b.Bundle(), next) {
		t.Error("not what was written")
	}
}

func TestUpdateOrder(t *testing.T) {
	a := mustOpen(t, t.TempDir(), time.Now())
	b := second(t, a, time.Now())
	old := a.Bundle()
	x, y := mustRotate(t, a.RotateCA), mustRotate(t, b.RotateGossipKey) // both generation 2
	for _, n := range []*Authority{a, b} {
		for _, u := range [][]byte{x, y, x, y} {
			if err := n.Update(u); err != nil && !errors.Is(err, ErrOlder) {
				t.Fatal(err)
			}
		}
		if err := n.Update(n.Bundle()); err != nil {
			t.Errorf("the same again: %v", err)
		}
		if err := n.Update(old); !errors.Is(err, ErrOlder) {
			t.Errorf("older: got %v", err)
		}
	}
	if !bytes.Equal(a.Bundle(), b.Bundle()) {
		t.Error("two changes at the same time leave different keys")
	}
	if err := a.Update(mustOpen(t, t.TempDir(), time.Now()).Bundle()); err == nil || !strings.Contains(err.Error(), "cluster") {
		t.Errorf("another cluster's: got %v", err)
	}
}

// Through all phases any two nodes understand each other, one a phase behind or not, and what the
// Kubernetes components read is right.
func TestRotateCA(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a, err := Open(filepath.Join(t.TempDir(), "pki"))
		if err != nil {
			t.Fatal(err)
		}
		b := second(t, a, time.Now())
		b.now = time.Now
		x, y := mustNode(t, a, "n1"), mustNode(t, b, "n2")
		runs(t, x)
		runs(t, y)
		if _, _, err := a.Serving("api.example", "192.0.2.1"); err != nil {
			t.Fatal(err)
		}
		admin, _, err := a.ClientCert("admin", "system:masters")
		if err != nil {
			t.Fatal(err)
		}
		oldHash, proxy := a.CAHash(), read(t, a.FrontProxyCAFile())
		for i, want := range []struct {
			phase     Phase
			cas       int
			newIssuer bool
			oldClient bool
		}{{Believed, 2, false, true}, {Used, 2, true, true}, {Steady, 1, true, false}} {
			next := mustRotate(t, a.RotateCA)
			both := func() {
				t.Helper()
				synctest.Wait()
				if err := errors.Join(handshake(x, y), handshake(y, x)); err != nil {
					t.Fatalf("phase %d: %v", i+1, err)
				}
			}
			mustUpdate(t, a, next)
			both()
			mustUpdate(t, b, next)
			both()
			if a.CAPhase() != want.phase || a.Generation() != uint64(i+2) { //nolint:gosec // small
				t.Errorf("phase %d: %s, generation %d", i+1, a.CAPhase(), a.Generation())
			}
			checkFiles(t, a, want.cas)
			if got := a.CAHash() != oldHash; got != want.newIssuer {
				t.Errorf("phase %d: new issuer: %v", i+1, got)
			}
			cert, _ := parseCert("", admin)
			_, err := cert.Verify(x509.VerifyOptions{Roots: y.Roots(), KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth}})
			if got := err == nil; got != want.oldClient {
				t.Errorf("phase %d: old client certificate: %v", i+1, err)
			}
		}
		if !bytes.Equal(proxy, read(t, a.FrontProxyCAFile())) {
			t.Error("the front proxy's CA changed")
		}
	})
}

// checkFiles looks at the files of a with the eyes of the components that read them.
func checkFiles(t *testing.T, a *Authority, cas int) {
	t.Helper()
	certs, err := parseCerts("", read(t, a.CAFile()))
	if err != nil || len(certs) != cas {
		t.Errorf("ca.crt has %d certificates (%v), want %d", len(certs), err, cas)
	}
	if _, err := parseCert("", read(t, a.IssuerFile())); err != nil {
		t.Error(err)
	}
	for _, cert := range []string{a.IssuerFile(), a.CAFile()} {
		if _, err := tls.LoadX509KeyPair(cert, a.CAKeyFile()); err != nil {
			t.Errorf("%s and its key: %v", filepath.Base(cert), err)
		}
	}
	pair, err := tls.LoadX509KeyPair(a.path(servingCert), a.path("apiserver.key"))
	if err != nil {
		t.Fatal(err)
	}
	for _, host := range []string{"api.example", "192.0.2.1"} {
		if err := errors.Join(pair.Leaf.VerifyHostname(host), pair.Leaf.CheckSignatureFrom(a.ring().issuer.cert)); err != nil {
			t.Errorf("serving certificate: %v", err)
		}
	}
	path := filepath.Join(t.TempDir(), "kubeconfig")
	if err := a.WriteKubeconfig(path, "https://localhost:6443", nil, "admin"); err != nil {
		t.Fatal(err)
	}
	if !strings.Contains(string(read(t, path)), base64.StdEncoding.EncodeToString(read(t, a.CAFile()))) {
		t.Error("the kubeconfig does not believe every CA")
	}
}

func TestRotateGossipAndEncryption(t *testing.T) {
	a := mustOpen(t, t.TempDir(), time.Now())
	old := a.GossipKeys()[0]
	for i, want := range []struct {
		phase Phase
		names []string
		first bool // the old gossip key is the primary
		n     int
	}{
		{Believed, []string{"key1", "key2"}, true, 2},
		{Used, []string{"key2", "key1"}, false, 2},
		{Steady, []string{"key2"}, false, 1},
	} {
		mustUpdate(t, a, mustRotate(t, a.RotateGossipKey))
		mustUpdate(t, a, mustRotate(t, a.RotateEncryptionKey))
		keys := a.GossipKeys()
		if a.GossipPhase() != want.phase || len(keys) != want.n || bytes.Equal(keys[0], old) != want.first {
			t.Errorf("phase %d: gossip %s, %d keys", i+1, a.GossipPhase(), len(keys))
		}
		names, err := a.EncryptionKeys()
		if diff := cmp.Diff(want.names, names); diff != "" || err != nil || a.EncryptionPhase() != want.phase {
			t.Errorf("phase %d: %s%v, %s", i+1, diff, err, a.EncryptionPhase())
		}
		if b := mustOpen(t, a.dir, time.Now()); !bytes.Equal(b.Bundle(), a.Bundle()) {
			t.Errorf("phase %d: not on disk", i+1)
		}
	}
}

func TestToken(t *testing.T) {
	a := mustOpen(t, t.TempDir(), time.Now())
	token := NewToken(a.CAHash())
	text := token.String()
	for _, s := range []string{text, " " + strings.ToUpper(text) + "\n"} {
		got, err := ParseToken(s)
		if err != nil || got != token || !bytes.Equal(got.Hash(), token.Hash()) {
			t.Errorf("got %v, %v", got, err)
		}
	}
	for i := range text {
		for _, c := range "ab7.x" {
			typo := text[:i] + string(c) + text[i+1:]
			if _, err := ParseToken(typo); typo != text && !errors.Is(err, ErrMistyped) {
				t.Errorf("%s: got %v", typo, err)
			}
		}
		if _, err := ParseToken(text[:i]); !errors.Is(err, ErrMistyped) {
			t.Errorf("cut at %d: got %v", i, err)
		}
	}
	if other := NewToken(a.CAHash()); other.ID == token.ID || bytes.Equal(other.Hash(), token.Hash()) {
		t.Error("two tokens are the same")
	}
	if s := token.LogValue().String(); strings.Contains(text[len(text)-32:], s) || s != token.ID {
		t.Errorf("logged as %q", s)
	}
}

func FuzzToken(f *testing.F) {
	text := NewToken([32]byte{1}).String()
	f.Add(text)
	f.Add(text[:20])
	f.Add("pswt1...")
	f.Fuzz(func(t *testing.T, s string) {
		token, err := ParseToken(s)
		if err == nil && token.String() != strings.ToLower(strings.TrimSpace(s)) {
			t.Errorf("%q is read as %q", s, token.String())
		}
	})
}

func FuzzBundle(f *testing.F) {
	a, err := Open(f.TempDir())
	if err != nil {
		f.Fatal(err)
	}
	f.Add(a.Bundle())
	next, err := a.RotateCA()
	if err != nil {
		f.Fatal(err)
	}
	f.Add(next)
	f.Add([]byte(`{"format":1}`))
	f.Fuzz(func(t *testing.T, data []byte) {
		r, err := decodeBundle(data)
		if err != nil {
			return
		}
		again, err := decodeBundle(r.data)
		if err != nil || !bytes.Equal(again.data, r.data) {
			t.Errorf("read, written and read again: %v", err)
		}
		if r.issuer == nil || r.proxy == nil || len(r.trusted) == 0 {
			t.Error("incomplete")
		}
	})
}

func FuzzNodeRequest(f *testing.F) {
	key, err := NewNodeKey()
	if err != nil {
		f.Fatal(err)
	}
	csr, err := NodeRequest("n1", key)
	if err != nil {
		f.Fatal(err)
	}
	f.Add(csr)
	f.Add(csr[:len(csr)/2])
	f.Fuzz(func(t *testing.T, data []byte) {
		if spki, err := ParseNodeRequest(data, "n1"); err == nil && len(spki) == 0 {
			t.Error("no key and no error")
		}
	})
}
