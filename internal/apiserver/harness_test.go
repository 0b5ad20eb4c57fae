package apiserver

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/netip"
	"os"
	"path/filepath"
	"testing"
	"time"

	"k8s.io/apimachinery/pkg/util/wait"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"

	"github.com/podman-swarm/podman-swarm/internal/pki"
	"github.com/podman-swarm/podman-swarm/internal/state"
)

// childWord makes the test binary stand for `podman-swarm openapi --out`.
const childWord = "openapi-child"

func TestMain(m *testing.M) {
	if len(os.Args) == 3 && os.Args[1] == childWord {
		if err := BuildOpenAPI(context.Background(), os.Args[2]); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		return
	}
	os.Exit(m.Run())
}

// node is a running server and what a test needs to talk to it.
type node struct {
	*Server
	dir   string
	keys  *pki.Authority
	store *state.Store
	stop  func()
}

func logger(t *testing.T) *slog.Logger {
	t.Helper()
	if testing.Verbose() {
		return slog.New(slog.NewTextHandler(t.Output(), nil))
	}
	return slog.New(slog.DiscardHandler)
}

// start runs a server over dir and waits until it is ready; change may adjust its settings.
func start(t *testing.T, dir string, change ...func(*Config)) *node {
	t.Helper()
	ctx, cancel := context.WithCancel(context.WithoutCancel(t.Context())) // outlives the test, to shut down
	n := &node{dir: dir}
	var err error
	if n.keys, err = pki.Open(filepath.Join(dir, "pki")); err != nil {
		t.Fatal(err)
	}
	stateDir := filepath.Join(dir, "state")
	if err := os.MkdirAll(stateDir, 0o700); err != nil {
		t.Fatal(err)
	}
	if n.store, err = state.Open(ctx, state.Config{Dir: stateDir, NodeID: "n1", Log: logger(t)}); err != nil {
		t.Fatal(err)
	}
	c := Config{
		DataDir: dir, Listen: "127.0.0.1:0", NodeName: "n1", Log: logger(t), Store: n.store, PKI: n.keys,
		Advertise: netip.MustParseAddr("192.0.2.10"), ServiceCIDR: netip.MustParsePrefix("10.43.0.0/16"),
		Nodes: noNodes{}, Version: "v0.1.0-test", OpenAPICommand: []string{os.Args[0], childWord},
	}
	for _, f := range change {
		f(&c)
	}
	if n.Server, err = New(ctx, c); err != nil {
		t.Fatal(err)
	}
	done := make(chan error, 1)
	go func() { done <- n.Run(ctx) }()
	stopped := false
	n.stop = func() {
		if stopped {
			return
		}
		stopped = true
		begin := time.Now()
		cancel()
		if err := <-done; err != nil {
			t.Errorf("run: %v", err)
		}
		if took := time.Since(begin); took > 5*time.Second {
			t.Errorf("shutdown took %v", took)
		}
		if err := n.store.Close(); err != nil {
			t.Errorf("close the store: %v", err)
		}
	}
	t.Cleanup(n.stop)
	select {
	case <-n.Ready():
	case err := <-done:
		t.Fatalf("ended before it was ready: %v", err)
	case <-time.After(60 * time.Second):
		t.Fatal("not ready after a minute")
	}
	return n
}

// as is a client over the network with a certificate for user.
func (n *node) as(t *testing.T, user string, groups ...string) *rest.Config {
	t.Helper()
	cert, key, err := n.keys.ClientCert(user, groups...)
	if err != nil {
		t.Fatal(err)
	}
	c := &rest.Config{Host: "https://" + n.Addr(), QPS: -1, WarningHandler: rest.NoWarnings{}}
	c.CAData, c.CertData, c.KeyData = n.keys.CAPEM(), cert, key
	return c
}

func (n *node) admin(t *testing.T) *kubernetes.Clientset {
	t.Helper()
	return client(t, n.as(t, "admin", "system:masters"))
}

func client(t *testing.T, c *rest.Config) *kubernetes.Clientset {
	t.Helper()
	cs, err := kubernetes.NewForConfig(c)
	if err != nil {
		t.Fatal(err)
	}
	return cs
}

// get asks for a path without any credentials but those in header.
func (n *node) get(t *testing.T, path string, header http.Header) (int, string, http.Header) {
	t.Helper()
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM(n.keys.CAPEM())
	c := &http.Client{Transport: &http.Transport{TLSClientConfig: &tls.Config{RootCAs: roots, MinVersion: tls.VersionTLS12}, DisableCompression: true}}
	defer c.CloseIdleConnections()
	req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, "https://"+n.Addr()+path, http.NoBody)
	if err != nil {
		t.Fatal(err)
	}
	for k, v := range header {
		req.Header[k] = v
	}
	resp, err := c.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return resp.StatusCode, string(body), resp.Header
}

// eventually waits for what other goroutines of the server do.
func eventually(t *testing.T, what string, cond func(context.Context) (bool, error)) {
	t.Helper()
	if err := wait.PollUntilContextTimeout(t.Context(), 20*time.Millisecond, 30*time.Second, true, cond); err != nil {
		t.Fatalf("%s: %v", what, err)
	}
}
