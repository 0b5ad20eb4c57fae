package pki

import (
	"bytes"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"sigs.k8s.io/yaml"
)

func mustOpen(t *testing.T, dir string, now time.Time) *Authority {
	t.Helper()
	a, err := open(&Authority{dir: dir, now: func() time.Time { return now }, seed: randomKey()})
	if err != nil {
		t.Fatal(err)
	}
	return a
}

func read(t *testing.T, path string) []byte {
	t.Helper()
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return data
}

func contents(t *testing.T, dir string) map[string]string {
	t.Helper()
	m := map[string]string{}
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		info, err := e.Info()
		if err != nil {
			t.Fatal(err)
		}
		if info.Mode().Perm() != 0o600 {
			t.Errorf("%s has mode %v, want 0600", e.Name(), info.Mode())
		}
		m[e.Name()] = string(read(t, filepath.Join(dir, e.Name())))
	}
	return m
}

func TestOpenKeepsEverything(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "pki")
	a := mustOpen(t, dir, time.Now())
	for range 2 {
		if _, _, err := a.Serving("localhost"); err != nil {
			t.Fatal(err)
		}
		if _, _, err := a.FrontProxy(); err != nil {
			t.Fatal(err)
		}
	}
	before := contents(t, dir)
	if len(before) != 13 {
		t.Errorf("got %d files, want 13", len(before))
	}
	b := mustOpen(t, dir, time.Now())
	if _, _, err := b.Serving("localhost"); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(before, contents(t, dir)); diff != "" {
		t.Errorf("opening again changed files:\n%s", diff)
	}
	info, err := os.Stat(dir)
	if err != nil || info.Mode().Perm() != 0o700 {
		t.Errorf("directory: %v, %v; want 0700", info.Mode(), err)
	}
}

// unsum makes a directory one that was never opened to the end.
func unsum(t *testing.T, dir string) {
	t.Helper()
	if err := os.Remove(filepath.Join(dir, sumsName)); err != nil {
		t.Fatal(err)
	}
}

// A crash may leave a key without its certificate; then the key is used.
func TestOpenAfterCrash(t *testing.T) {
	dir := t.TempDir()
	mustOpen(t, dir, time.Now())
	unsum(t, dir)
	key := read(t, filepath.Join(dir, "ca.key"))
	if err := os.Remove(filepath.Join(dir, "ca.crt")); err != nil {
		t.Fatal(err)
	}
	mustOpen(t, dir, time.Now())
	if !bytes.Equal(key, read(t, filepath.Join(dir, "ca.key"))) {
		t.Error("the key was replaced")
	}
}

// otherByte changes a byte of a PEM file to another that is valid there.
func otherByte(data []byte) []byte {
	middle := &data[len(data)/2]
	if *middle == 'A' {
		*middle = 'B'
	} else {
		*middle = 'A'
	}
	return data
}

// What is wrong is named also where there are no sums that tell of it.
func TestOpenDamaged(t *testing.T) {
	good := t.TempDir()
	mustOpen(t, good, time.Now())
	unsum(t, good)
	other := t.TempDir()
	mustOpen(t, other, time.Now())
	tests := map[string]struct {
		file string
		data []byte // nil removes the file
		want string
	}{
		"truncated certificate": {"ca.crt", []byte("-----BEGIN CERTIFICATE-----\nMII"), "ca.crt"},
		"empty certificate":     {"ca.crt", []byte{}, "ca.crt"},
		"garbage key":           {"ca.key", []byte("garbage"), "ca.key"},
		"lost key":              {"ca.key", nil, "ca.key"},
		"key of another CA":     {"ca.key", read(t, filepath.Join(other, "ca.key")), "does not belong to"},
		"front proxy":           {"front-proxy-ca.key", nil, "front-proxy-ca.key"},
		"token key":             {"sa.key", []byte("x"), "sa.key"},
		"byte of the token key": {"sa.key", otherByte(read(t, filepath.Join(good, "sa.key"))), "sa.key"},
		"encryption, not YAML":  {"encryption.yaml", []byte("{"), "encryption.yaml"},
		"encryption, empty":     {"encryption.yaml", []byte{}, "encryption.yaml"},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			if err := os.CopyFS(dir, os.DirFS(good)); err != nil {
				t.Fatal(err)
			}
			path := filepath.Join(dir, tt.file)
			if err := os.Remove(path); err != nil {
				t.Fatal(err)
			}
			if tt.data != nil {
				if err := os.WriteFile(path, tt.data, 0o600); err != nil {
					t.Fatal(err)
				}
			}
			_, err := Open(dir)
			if err == nil {
				t.Fatal("opened damaged files")
			}
			if msg := err.Error(); !strings.Contains(msg, tt.want) || strings.Contains(msg, "\n") {
				t.Errorf("error %q, want one line with %q", msg, tt.want)
			}
		})
	}
}

func TestServingIsRenewed(t *testing.T) {
	start := time.Now()
	tests := map[string]struct {
		after time.Duration
		hosts []string
		want  bool
	}{
		"fresh":           {0, []string{"a", "10.0.0.1"}, false},
		"two fifths left": {servingLife * 3 / 5, []string{"a", "10.0.0.1"}, false},
		"order of hosts":  {0, []string{"10.0.0.1", "a"}, false},
		"under a third":   {servingLife * 7 / 10, []string{"a", "10.0.0.1"}, true},
		"expired":         {servingLife * 2, []string{"a", "10.0.0.1"}, true},
		"begins now":      {-skew + time.Second, []string{"a", "10.0.0.1"}, false},
		"not valid yet":   {-skew - time.Second, []string{"a", "10.0.0.1"}, true},
		"new address":     {0, []string{"a", "10.0.0.2"}, true},
		"fewer hosts":     {0, []string{"a"}, true},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			cert, key, err := mustOpen(t, dir, start).Serving("a", "10.0.0.1")
			if err != nil {
				t.Fatal(err)
			}
			old, oldKey := read(t, cert), read(t, key)
			if _, _, err := mustOpen(t, dir, start.Add(tt.after)).Serving(tt.hosts...); err != nil {
				t.Fatal(err)
			}
			if got := !bytes.Equal(old, read(t, cert)); got != tt.want {
				t.Errorf("renewed: %v, want %v", got, tt.want)
			}
			if !bytes.Equal(oldKey, read(t, key)) {
				t.Error("the key changed: certificate and key cannot be replaced in one step")
			}
			if _, err := tls.LoadX509KeyPair(cert, key); err != nil {
				t.Error(err)
			}
		})
	}
}

func TestCertificatesVerify(t *testing.T) {
	a := mustOpen(t, t.TempDir(), time.Now())
	roots := x509.NewCertPool()
	if !roots.AppendCertsFromPEM(a.CAPEM()) {
		t.Fatal("CAPEM holds no certificate")
	}
	parse := func(data []byte, err error) *x509.Certificate {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
		block, _ := pem.Decode(data)
		cert, err := x509.ParseCertificate(block.Bytes)
		if err != nil {
			t.Fatal(err)
		}
		return cert
	}
	data, _, err := a.ServerCert("node-1", "192.0.2.7")
	server := parse(data, err)
	for _, name := range []string{"node-1", "192.0.2.7"} {
		if _, err := server.Verify(x509.VerifyOptions{Roots: roots, DNSName: name}); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
	if _, err := server.Verify(x509.VerifyOptions{Roots: roots, DNSName: "node-2"}); err == nil {
		t.Error("valid for a host it was not issued for")
	}
	asClient := x509.VerifyOptions{Roots: roots, KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth}}
	if _, err := server.Verify(asClient); err == nil {
		t.Error("a serving certificate works for a client")
	}
	data, _, err = a.ClientCert("jane", "devs", "ops")
	user := parse(data, err)
	if _, err := user.Verify(asClient); err != nil {
		t.Error(err)
	}
	groups := user.Subject.Organization // a set: its order is the encoding's
	slices.Sort(groups)
	if user.Subject.CommonName != "jane" || !slices.Equal(groups, []string{"devs", "ops"}) {
		t.Errorf("got user %s in %v", user.Subject.CommonName, groups)
	}
	proxyFile, _, err := a.FrontProxy()
	proxy := parse(read(t, proxyFile), err)
	if _, err := proxy.Verify(asClient); err == nil {
		t.Error("the front proxy's certificate is valid for ordinary clients' CA")
	}
}

func TestWriteKubeconfig(t *testing.T) {
	dir := t.TempDir()
	a := mustOpen(t, filepath.Join(dir, "pki"), time.Now())
	path := filepath.Join(dir, "admin.kubeconfig")
	if err := a.WriteKubeconfig(path, "https://127.0.0.1:6443", nil, "admin", "system:masters"); err != nil {
		t.Fatal(err)
	}
	info, err := os.Stat(path)
	if err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("%v, %v; want mode 0600", info, err)
	}
	var c struct {
		Clusters []struct {
			Cluster struct {
				Server string `json:"server"`
				CA     []byte `json:"certificate-authority-data"`
			} `json:"cluster"`
		} `json:"clusters"`
		Users []struct {
			User struct {
				Cert []byte `json:"client-certificate-data"`
				Key  []byte `json:"client-key-data"`
			} `json:"user"`
		} `json:"users"`
		Current string `json:"current-context"`
	}
	if err := yaml.Unmarshal(read(t, path), &c); err != nil {
		t.Fatal(err)
	}
	if c.Clusters[0].Cluster.Server != "https://127.0.0.1:6443" || !bytes.Equal(c.Clusters[0].Cluster.CA, a.CAPEM()) || c.Current != "podman-swarm" {
		t.Errorf("got %+v", c)
	}
	if _, err := tls.X509KeyPair(c.Users[0].User.Cert, c.Users[0].User.Key); err != nil {
		t.Error(err)
	}
}

func TestEncryptionKeys(t *testing.T) {
	dir := t.TempDir()
	a := mustOpen(t, dir, time.Now())
	want := func(names ...string) {
		t.Helper()
		got, err := mustOpen(t, dir, time.Now()).EncryptionKeys()
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(names, got); diff != "" {
			t.Error(diff)
		}
	}
	want("key1")
	for _, name := range []string{"key2", "key3"} {
		if got, err := a.AddEncryptionKey(); err != nil || got != name {
			t.Fatalf("got %s, %v; want %s", got, err, name)
		}
	}
	want("key3", "key2", "key1")
	if err := a.DropEncryptionKeys(); err != nil {
		t.Fatal(err)
	}
	want("key3")
	if _, err := a.AddEncryptionKey(); err != nil {
		t.Fatal(err)
	}
	want("key4", "key3") // names are never used again
}

func TestWriteFileKeepsOldOnError(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "taken")
	if err := os.MkdirAll(filepath.Join(path, "x"), 0o700); err != nil { // rename onto it must fail
		t.Fatal(err)
	}
	if err := WriteFile(path, []byte("data")); err == nil {
		t.Fatal("replaced a directory")
	}
	entries, err := os.ReadDir(dir)
	if err != nil || len(entries) != 1 {
		t.Errorf("left over: %v, %v", entries, err)
	}
}

func FuzzParse(f *testing.F) {
	dir := f.TempDir()
	if _, err := Open(dir); err != nil {
		f.Fatal(err)
	}
	for _, name := range []string{"ca.crt", "ca.key", "encryption.yaml"} {
		data, err := os.ReadFile(filepath.Join(dir, name))
		if err != nil {
			f.Fatal(err)
		}
		f.Add(data)
		f.Add(data[:len(data)/2])
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		if cert, err := parseCert("f", data); err == nil && cert == nil {
			t.Error("no certificate and no error")
		}
		if key, err := parseKey("f", data); err == nil && key == nil {
			t.Error("no key and no error")
		}
		if c, err := parseEncryption(data); err == nil && len(*c.keys()) == 0 {
			t.Error("no encryption key and no error")
		}
	})
}

func TestBegin(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "pki")
	if _, err := Begin(dir, make([]byte, 31)); err == nil {
		t.Error("a short key was taken")
	}
	key := bytes.Repeat([]byte{3}, 32)
	a, err := Begin(dir, key)
	if err != nil {
		t.Fatal(err)
	}
	if got := a.GossipKeys(); len(got) != 1 || !bytes.Equal(got[0], key) {
		t.Errorf("gossip keys %x", got)
	}
	again, err := Begin(dir, bytes.Repeat([]byte{4}, 32))
	if err != nil {
		t.Fatal(err)
	}
	if got := again.GossipKeys(); len(got) != 1 || !bytes.Equal(got[0], key) {
		t.Errorf("of a cluster that has begun: gossip keys %x", got)
	}
}

// A certificate with its issuer's subject is self-signed to OpenSSL, and so to curl and Python.
func TestNothingIssuedLooksSelfSigned(t *testing.T) {
	a := mustOpen(t, t.TempDir(), time.Now())
	serving, _, err := a.Serving("localhost")
	if err != nil {
		t.Fatal(err)
	}
	proxy, _, err := a.FrontProxy()
	if err != nil {
		t.Fatal(err)
	}
	if _, err := a.Node("n1", "192.0.2.1"); err != nil {
		t.Fatal(err)
	}
	for _, file := range []string{serving, proxy, a.path(nodeCertName)} {
		data, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		certs, err := parseCerts(file, data)
		if err != nil {
			t.Fatal(err)
		}
		if bytes.Equal(certs[0].RawSubject, certs[0].RawIssuer) {
			t.Errorf("%s: subject and issuer are both %s", file, certs[0].Subject)
		}
	}
}
