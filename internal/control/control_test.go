package control_test

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"flag"
	"fmt"
	"log/slog"
	"math/big"
	"net/http"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"k8s.io/client-go/informers"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"
	"k8s.io/kubernetes/cmd/kube-controller-manager/app"

	"github.com/podman-swarm/podman-swarm/internal/control"
	"github.com/podman-swarm/podman-swarm/internal/tap"
)

var update = flag.Bool("update", false, "accept what is as what should be")

// TestEveryUpstreamControllerIsClassified fails when upstream adds, drops, gates or ungates a
// controller. Look at it, decide, and accept with -update; docs/compatibility.md carries the table.
func TestEveryUpstreamControllerIsClassified(t *testing.T) {
	var table strings.Builder
	var known []string
	for _, d := range control.Decisions() {
		known = append(known, d.Name)
		if d.Runs != (d.Reason == "") {
			t.Errorf("%s: runs is %v, but the reason not to is %q", d.Name, d.Runs, d.Reason)
		}
		reason := d.Reason
		if d.Runs {
			reason = "runs"
		}
		fmt.Fprintf(&table, "%s: %s\n", d.Name, reason)
	}
	if diff := cmp.Diff(app.KnownControllers(), known); diff != "" {
		t.Errorf("upstream's controllers and those decided on (-upstream +decided):\n%s", diff)
	}
	golden := filepath.Join("testdata", "controllers.txt")
	if *update {
		if err := os.WriteFile(golden, []byte(table.String()), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(golden)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(string(want), table.String()); diff != "" {
		t.Errorf("the decisions changed (-%s +now):\n%s", golden, diff)
	}
}

// TestOmissionsAreUpstreamsDefaults keeps the list of omissions honest: one that upstream does not
// know or does not run either would explain nothing.
func TestOmissionsAreUpstreamsDefaults(t *testing.T) {
	off := app.ControllersDisabledByDefault()
	for _, d := range control.Decisions() {
		if slices.Contains(off, d.Name) && !strings.HasPrefix(d.Reason, "off by default upstream") {
			t.Errorf("%s is off upstream; here: %q", d.Name, d.Reason)
		}
	}
}

// world is an API, the process's informers, and the files a control plane needs.
type world struct {
	api    *api
	base   informers.SharedInformerFactory
	config control.Config
	log    *bytes.Buffer
}

func build(t *testing.T) world {
	t.Helper()
	a := startAPI(t)
	client, err := kubernetes.NewForConfig(a.rest)
	if err != nil {
		t.Fatal(err)
	}
	ctx := t.Context()
	base := informers.NewSharedInformerFactory(client, 0)
	t.Cleanup(base.Shutdown)
	certificate, key := authority(t)
	log := new(bytes.Buffer)
	return world{api: a, base: base, log: log, config: control.Config{
		REST: a.rest, Informers: tap.NewSource(base, ctx.Done()),
		CAFile: certificate, IssuerFile: certificate, CAKeyFile: key, SAKeyFile: key,
		Log: slog.New(slog.NewTextHandler(log, &slog.HandlerOptions{Level: slog.LevelDebug})),
	}}
}

// start runs the controllers and returns a function that stops them and waits for Run.
func start(t *testing.T, c control.Config) func() {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	started := make(chan struct{})
	c.Started = started
	var running sync.WaitGroup
	var failure error
	running.Go(func() { failure = control.Run(ctx, c) })
	stop := func() {
		cancel()
		running.Wait()
		if failure != nil {
			t.Errorf("run: %v", failure)
		}
	}
	select {
	case <-started:
	case <-time.After(time.Minute):
		stop()
		t.Fatal("controllers did not start within a minute")
	}
	return stop
}

// TestRunMayBeRepeated is what leadership does: the controllers start, stop and start again on
// informers that live on. Nothing may pile up.
func TestRunMayBeRepeated(t *testing.T) {
	w := build(t)
	start(t, w.config)()
	w.informersSynced(t)
	const runs = 5
	before := w.goroutines(t, 0)
	for range runs {
		start(t, w.config)()
	}
	// Anything a run leaves behind would be there once per run.
	if after := w.goroutines(t, before); after >= before+runs {
		t.Errorf("%d goroutines after one run, %d after %d more", before, after, runs)
	}
}

// informersSynced waits until the informers, which outlive a run, have settled.
func (w world) informersSynced(t *testing.T) {
	t.Helper()
	if result := w.base.WaitForCacheSyncWithContext(t.Context()); result.Err != nil {
		t.Fatal(result.Err)
	}
}

// goroutines counts those there are when their number no longer falls, or as soon as there are no
// more than enough. Idle connections are the client's and do not count.
func (w world) goroutines(t *testing.T, enough int) int {
	t.Helper()
	tick := time.NewTicker(50 * time.Millisecond)
	defer tick.Stop()
	lowest, since := runtime.NumGoroutine(), 0
	for since < 20 && lowest > enough {
		<-tick.C
		w.api.transport.CloseIdleConnections()
		since++
		if now := runtime.NumGoroutine(); now < lowest {
			lowest, since = now, 0
		}
	}
	return lowest
}

func TestControllersActUnderTheirOwnNames(t *testing.T) {
	w := build(t)
	stop := start(t, w.config)
	// Discovery by the quota controller happens while it is built.
	seen := strings.Join(w.api.seen(), "\n")
	stop()
	for _, want := range []string{
		"system:serviceaccount:kube-system:kube-apiserver-serving-clustertrustbundle-publisher kube-controller-manager/podman-swarm/",
		" kube-controller-manager/podman-swarm/resourcequota-controller",
	} {
		if !strings.Contains(seen, want) {
			t.Errorf("nobody asked as %q; those who did:\n%s", want, seen)
		}
	}
}

func TestMissingKeyIsAnError(t *testing.T) {
	w := build(t)
	w.config.SAKeyFile = filepath.Join(t.TempDir(), "absent.key")
	err := control.Run(t.Context(), w.config)
	if !errors.Is(err, os.ErrNotExist) || !strings.Contains(err.Error(), "absent.key") {
		t.Errorf("run without a key: %v, want an error that names the file", err)
	}
}

// authority writes a certificate authority and returns its files.
func authority(t *testing.T) (certificate, key string) {
	t.Helper()
	private, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "test"}, IsCA: true, BasicConstraintsValid: true,
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour), KeyUsage: x509.KeyUsageCertSign,
	}
	signed, err := x509.CreateCertificate(rand.Reader, template, template, &private.PublicKey, private)
	if err != nil {
		t.Fatal(err)
	}
	encoded, err := x509.MarshalECPrivateKey(private)
	if err != nil {
		t.Fatal(err)
	}
	write := func(name, kind string, content []byte) string {
		path := filepath.Join(t.TempDir(), name)
		if err := os.WriteFile(path, pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: content}), 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	return write("ca.crt", "CERTIFICATE", signed), write("ca.key", "EC PRIVATE KEY", encoded)
}

// TestAPIGoesAway: the API may stop answering at every request of the beginning, as when this node leads no
// more before its controllers run. That is an error or nothing, and never the end of the process.
func TestAPIGoesAway(t *testing.T) {
	w := build(t)
	var errs int
	for after := int64(0); ; after++ {
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		config := w.config
		config.REST = rest.CopyConfig(w.config.REST)
		goes := &goesAway{RoundTripper: w.api.transport}
		goes.left.Store(after)
		config.REST.Transport = goes
		started := make(chan struct{})
		config.Started = started
		var err error
		ended := make(chan struct{})
		go func() {
			defer close(ended)
			err = control.Run(ctx, config)
		}()
		select {
		case <-started:
		case <-ended:
		}
		cancel()
		<-ended
		if err == nil {
			break
		}
		if errs++; !strings.Contains(err.Error(), errGone.Error()) {
			t.Fatalf("after %d requests: %v", after, err)
		}
	}
	if errs < 5 {
		t.Errorf("%d requests are enough to begin: these are not all controllers", errs)
	}
}

var errGone = errors.New("the API is gone")

// goesAway answers some requests.
type goesAway struct {
	http.RoundTripper
	left atomic.Int64
}

func (g *goesAway) RoundTrip(r *http.Request) (*http.Response, error) {
	if g.left.Add(-1) < 0 {
		return nil, errGone
	}
	return g.RoundTripper.RoundTrip(r)
}
