package node

import (
	"context"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/podman-swarm/podman-swarm/internal/backup"
	"github.com/podman-swarm/podman-swarm/internal/join"
	"github.com/podman-swarm/podman-swarm/internal/node/operate"
	"github.com/podman-swarm/podman-swarm/internal/pki"
	"github.com/podman-swarm/podman-swarm/internal/state"
)

// lost is a swarm of which only a backup is left.
type lost struct {
	keys  *pki.Authority
	store *state.Store
}

func newLost(t *testing.T) *lost {
	t.Helper()
	keys, err := pki.Open(filepath.Join(t.TempDir(), "pki"))
	if err != nil {
		t.Fatal(err)
	}
	store := openState(t, filepath.Join(t.TempDir(), "state"))
	t.Cleanup(func() { _ = store.Close() })
	return &lost{keys, store}
}

func openState(t *testing.T, dir string) *state.Store {
	t.Helper()
	store, err := state.Open(t.Context(), state.Config{Dir: dir, NodeID: "n1", Addr: "127.0.0.1:7946", Log: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	return store
}

func (l *lost) put(t *testing.T, key string, value any) {
	t.Helper()
	data, err := json.Marshal(value)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := l.store.Apply(t.Context(), state.Write{Key: key, Value: data, Expect: state.Any}); err != nil {
		t.Fatal(err)
	}
}

// certificate is of a node with a new key.
func (l *lost) certificate(t *testing.T, name string) *x509.Certificate {
	t.Helper()
	key, err := pki.NewNodeKey()
	if err != nil {
		t.Fatal(err)
	}
	csr, err := pki.NodeRequest(name, key)
	if err != nil {
		t.Fatal(err)
	}
	data, err := l.keys.SignNode(csr, name, []string{"127.0.0.1"})
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

func keyOf(cert *x509.Certificate) string { return join.KeyID(cert.RawSubjectPublicKeyInfo) }

// backup is the copy that somebody kept.
func (l *lost) backup(t *testing.T) string {
	t.Helper()
	file, err := backup.Create(t.Context(), t.TempDir(), backup.Source{
		Info:     backup.Info{Cluster: l.keys.Cluster(), Node: "n1"},
		Snapshot: func(w io.Writer) (uint64, error) { return l.store.Revision(), l.store.Export(w) },
		Keys:     func() ([]byte, error) { return l.keys.Bundle(), nil },
		Objects:  func(context.Context, func(string, []byte) error) error { return nil },
	})
	if err != nil {
		t.Fatal(err)
	}
	return file
}

// The authority is the same after a restore as before, so certificates of before are in order: their
// nodes must be refused by name and key, and those that join anew must not.
func TestRestoreRefusesTheNodesOfBefore(t *testing.T) {
	l := newLost(t)
	old, twice := map[string]*x509.Certificate{}, l.certificate(t, "twice")
	for _, name := range []string{"n1", "n2", "joining", "twice", "removed", "dated"} {
		old[name] = l.certificate(t, name)
	}
	record := func(name string, confirmed bool) {
		l.put(t, join.NodesPrefix+name, join.Node{Name: name, Key: keyOf(old[name]), Confirmed: confirmed})
	}
	record("n1", true)
	record("n2", true)
	record("joining", false)
	record("twice", true)
	l.put(t, operate.RemovedPrefix+"twice", operate.Removal{Removed: time.Now().Add(-time.Hour), Key: keyOf(twice)})
	l.put(t, operate.RemovedPrefix+"removed", operate.Removal{Removed: time.Now(), Key: keyOf(old["removed"])})
	l.put(t, operate.RemovedPrefix+"dated", operate.Removal{Removed: time.Now().Add(time.Second)})
	l.put(t, join.NodesPrefix+"damaged", "no record")

	c := hollowNode(t, "n1")
	var out strings.Builder
	if err := Restore(t.Context(), c, l.backup(t), &out); err != nil {
		t.Fatal(err)
	}
	store := openState(t, filepath.Join(c.DataDir, "state"))
	defer store.Close()
	if have := join.Nodes(store.View()); len(have) > 0 {
		t.Errorf("nodes are left: %v", have)
	}
	later := time.Now().Add(time.Minute)
	for name, cert := range old {
		if operate.RefuseRemoved(store.View(), cert, later) == nil {
			t.Errorf("%s of before is trusted again", name)
		}
	}
	if operate.RefuseRemoved(store.View(), twice, later) == nil {
		t.Error("one that was removed before another had its name is trusted again")
	}
	for _, name := range []string{"n1", "n2", "joining", "removed", "new"} {
		if err := operate.RefuseRemoved(store.View(), l.certificate(t, name), later); err != nil {
			t.Errorf("%s cannot join anew: %v", name, err)
		}
	}
}

// The configuration file of a machine that joined, or began, a swarm once serves it again.
func TestRestoreHeedsNoWayIntoASwarm(t *testing.T) {
	file := newLost(t).backup(t)
	for name, change := range map[string]func(*Config){
		"join":          func(c *Config) { c.Join, c.JoinToken = "127.0.0.1:1", "t" },
		"encryptionKey": func(c *Config) { c.EncryptionKey = "/none" },
	} {
		t.Run(name, func(t *testing.T) {
			c := hollowNode(t, "n1")
			change(&c)
			if err := Restore(t.Context(), c, file, &strings.Builder{}); err != nil {
				t.Error(err)
			}
		})
	}
}

func TestRestoreRefusals(t *testing.T) {
	c := hollowNode(t, "n1")
	var out strings.Builder
	wantLine(t, Restore(t.Context(), c, filepath.Join(t.TempDir(), "none"), &out), "no such file")
	bad := filepath.Join(t.TempDir(), "bad.tar.gz")
	if err := os.WriteFile(bad, []byte("no backup"), 0o600); err != nil {
		t.Fatal(err)
	}
	wantLine(t, Restore(t.Context(), c, bad, &out), "damaged backup")
	wantGone(t, c.DataDir)
}

// killed is a context by which a process ends where it asks for the first time whether to go on.
type killed struct{ context.Context }

func (killed) Err() error { runtime.Goexit(); return nil }

// Keys without a state are those of an empty swarm, which nobody may make of half a restore.
func TestRestoreThatIsCutOff(t *testing.T) {
	l := newLost(t)
	l.put(t, "/registry/kept", "yes")
	c, file := hollowNode(t, "n1"), l.backup(t)
	var out strings.Builder
	ended := make(chan bool)
	go func() {
		defer close(ended)
		_ = Restore(killed{t.Context()}, c, file, &out)
		t.Error("it was not cut off")
	}()
	<-ended
	if !exists(filepath.Join(c.DataDir, "pki")) {
		t.Fatal("it was cut off before it began")
	}
	disk := c.DataDir // the lock would go with the process: a copy has none
	c.DataDir = filepath.Join(t.TempDir(), "data")
	if err := os.CopyFS(c.DataDir, os.DirFS(disk)); err != nil {
		t.Fatal(err)
	}
	const want = "a restore was cut off here: run podman-swarm restore again, or podman-swarm reset --yes to give it up"
	for name, do := range map[string]func(Config) error{
		"agent": func(c Config) error { return Run(t.Context(), c) },
		"init":  func(c Config) error { return Init(t.Context(), c, &out) },
		"join":  func(c Config) error { return Join(t.Context(), c, "127.0.0.1:1", "t", &out) },
	} {
		err := do(c)
		if wantLine(t, err, want); !Over(err) {
			t.Errorf("%s would be tried again", name)
		}
	}
	c.NodeName = "n9" // whatever the first try was called
	if err := Restore(t.Context(), c, file, &out); err != nil {
		t.Fatal(err)
	}
	store := openState(t, filepath.Join(c.DataDir, "state"))
	defer store.Close()
	if _, ok := store.View().Get("/registry/kept"); !ok {
		t.Error("the state is not that of the backup")
	}
	if err := Restore(t.Context(), c, file, &out); err == nil || !strings.Contains(err.Error(), "holds a node already") {
		t.Errorf("over what is whole: %v", err)
	}
}
