package operate

import (
	"bytes"
	"context"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"k8s.io/client-go/rest"

	"github.com/podman-swarm/podman-swarm/internal/backup"
	"github.com/podman-swarm/podman-swarm/internal/node/nodetest"
	"github.com/podman-swarm/podman-swarm/internal/swarm"
)

// noAPI is an API server that serves nothing: a backup then holds the state and the keys.
func noAPI(t *testing.T) *rest.Config {
	t.Helper()
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		kind := `{"kind":"APIVersions","versions":[]}`
		if r.URL.Path == "/apis" {
			kind = `{"kind":"APIGroupList","apiVersion":"v1","groups":[]}`
		}
		w.Header().Set("Content-Type", "application/json")
		_, _ = io.WriteString(w, kind)
	}))
	t.Cleanup(s.Close)
	return &rest.Config{Host: s.URL}
}

// A backup is used from any node, wherever it lies.
func TestBackupsOfOtherNodes(t *testing.T) {
	t.Parallel()
	o := operateOn(t, "n1", "n2", "n3")
	here, there := o.backends[0], o.backends[1]
	o.nodes[0].Put(t, "/configmaps/default/a", "then")
	nodetest.Eventually(t, "n2 has it", func() bool { _, ok := o.nodes[1].Store.View().Get("/configmaps/default/a"); return ok })
	made, err := there.Backups.Create(t.Context(), swarm.BackupRequest{Reason: "test"}, o.say)
	if err != nil || !strings.HasPrefix(made.ID, "n2/") {
		t.Fatalf("%+v, %v", made, err)
	}
	list, err := here.Backups.List(t.Context())
	if err != nil || len(list.Items) != 1 || list.Items[0].ID != made.ID || list.Items[0].Verified.IsZero() || len(list.Silent) > 0 {
		t.Errorf("%+v, %v", list, err)
	}

	want, err := os.ReadFile(made.Path)
	if err != nil {
		t.Fatal(err)
	}
	file, size, err := here.Files.Open(t.Context(), made.ID)
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	if got, err := io.ReadAll(file); err != nil || size != int64(len(want)) || !bytes.Equal(got, want) {
		t.Errorf("%d bytes of %d, the same: %v, %v", len(got), size, bytes.Equal(got, want), err)
	}

	o.nodes[0].Put(t, "/configmaps/default/a", "now")
	if err := here.Backups.Restore(t.Context(), made.ID, o.say); err != nil {
		t.Fatalf("%v, said %q", err, o.said)
	}
	if e, _ := o.nodes[0].Store.View().Get("/configmaps/default/a"); string(e.Value) != "then" {
		t.Errorf("restored to %q", e.Value)
	}

	for id, want := range map[string]string{"n2/none": `there is no backup "none" on node n2`, "n2/../../pki/ca.key": "there is no backup", "n9/x": "n9"} {
		_, _, err := here.Files.Open(t.Context(), id)
		wantError(t, err, want)
		wantError(t, here.Backups.Restore(t.Context(), id, o.say), want)
		wantError(t, here.Backups.Delete(t.Context(), id), want)
	}
	if err := here.Backups.Delete(t.Context(), made.ID); err != nil {
		t.Error(err)
	}
	if _, err := os.Stat(made.Path); !os.IsNotExist(err) {
		t.Errorf("its file is still there: %v", err)
	}

	o.nodes[1].Die()
	if list, err = here.Backups.List(t.Context()); err != nil || len(list.Items) != 0 || !slices.Equal(list.Silent, []string{"n2"}) {
		t.Errorf("with n2 gone: %+v, %v", list, err)
	}
	_, _, err = here.Files.Open(t.Context(), made.ID)
	wantError(t, err, "node n2: ")
	if code := swarm.Code(err); code != http.StatusServiceUnavailable {
		t.Errorf("code %d", code)
	}
}

// ownBackups are the backups of one node whose policy keeps two.
func ownBackups(t *testing.T) *backups {
	t.Helper()
	o := operateOn(t, "n1")
	b := &backups{Config: o.configs[0], seen: map[string]verified{}}
	if err := b.SetPolicy(t.Context(), swarm.BackupPolicy{Every: swarm.Duration(time.Hour), Keep: 2}); err != nil {
		t.Fatal(err)
	}
	return b
}

// writeBackup makes a backup that says it was made at a time.
func writeBackup(t *testing.T, b *backups, at time.Time) {
	t.Helper()
	_, err := backup.Create(t.Context(), b.Backups, backup.Source{
		Info:     backup.Info{Cluster: "c", Created: at},
		Snapshot: func(w io.Writer) (uint64, error) { _, err := io.WriteString(w, "s"); return 1, err },
		Keys:     func() ([]byte, error) { return []byte("k"), nil },
	})
	if err != nil {
		t.Fatal(err)
	}
}

// What is remembered of backups does not grow with every one that was ever made.
func TestRemovedBackupsAreForgotten(t *testing.T) {
	b := ownBackups(t)
	start := time.Now().Add(-20 * 24 * time.Hour)
	for i := range 30 {
		writeBackup(t, b, start.Add(time.Duration(i)*8*time.Hour))
		if _, err := b.own(); err != nil {
			t.Fatal(err)
		}
		b.prune()
		if kept, err := backup.List(b.Backups); err != nil || len(b.seen) != len(kept) {
			t.Fatalf("%d backups are kept, %d are remembered, %v", len(kept), len(b.seen), err)
		}
	}
	for path, v := range b.seen {
		if v.info.Sums != nil {
			t.Fatalf("%d checksums of %s are remembered", len(v.info.Sums), path)
		}
		if err := b.deleteOwn(filepath.Base(path)); err != nil {
			t.Error(err)
		}
	}
	if len(b.seen) > 0 {
		t.Errorf("deleted, but remembered: %v", b.seen)
	}
}

// A backup of the time when the clock was ahead keeps no other from being made, nor from staying.
func TestBackupsGoOnAfterAClockThatWasAhead(t *testing.T) {
	b := ownBackups(t)
	var log bytes.Buffer
	b.Log = slog.New(slog.NewTextHandler(&log, nil))
	now := time.Now()
	for i := range 3 {
		writeBackup(t, b, now.AddDate(1, 0, i))
	}
	for i := range 3 {
		if !b.due(now) {
			t.Fatal("none is due, and the newest is dated in the future")
		}
		if i == 1 {
			writeBackup(t, b, now.Add(-2*time.Hour))
		}
	}
	if n := strings.Count(log.String(), "dated in the future"); n != 1 {
		t.Errorf("%d warnings: %s", n, log.String())
	}
	writeBackup(t, b, now.Add(-time.Minute))
	b.prune()
	if b.due(now) {
		t.Error("one is due a minute after the last")
	}
	kept, err := backup.List(b.Backups)
	if n := len(backup.Ahead(kept, now)); err != nil || len(kept)-n != 2 {
		t.Errorf("%d backups are left, %d of them dated in the future, %v; want both that are not", len(kept), n, err)
	}
}

// What an agent that was killed was writing is removed by the next, which waits for what is being
// written now.
func TestRunRemovesHalfWrittenBackups(t *testing.T) {
	b := ownBackups(t)
	half := filepath.Join(b.Backups, ".new-1")
	if err := os.WriteFile(half, []byte("half"), 0o600); err != nil {
		t.Fatal(err)
	}
	b.making.Lock()
	ctx, cancel := context.WithCancel(t.Context())
	var running sync.WaitGroup
	running.Go(func() { _ = b.Run(ctx) })
	defer running.Wait()
	defer cancel()
	if _, err := os.Stat(half); err != nil {
		t.Errorf("it was being written: %v", err)
	}
	b.making.Unlock()
	nodetest.Eventually(t, "it is gone", func() bool { _, err := os.Stat(half); return os.IsNotExist(err) })
}
