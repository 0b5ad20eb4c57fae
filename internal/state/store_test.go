package state

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/hashicorp/raft"
	"go.uber.org/goleak"

	"github.com/podman-swarm/podman-swarm/internal/state/lab"
	"github.com/podman-swarm/podman-swarm/internal/state/machine"
)

func TestMain(m *testing.M) {
	if dir := os.Getenv(childEnv); dir != "" {
		child(dir)
		return
	}
	// Many small synced writes: what they mean is tested, not the disk under them. Benchmarks
	// say themselves where they write.
	if info, err := os.Stat("/dev/shm"); err == nil && info.IsDir() && os.Getenv("PSW_TEST_DISK") == "" {
		_ = os.Setenv("TMPDIR", "/dev/shm")
	}
	goleak.VerifyTestMain(m)
}

func quiet() *slog.Logger { return slog.New(slog.DiscardHandler) }

// open opens a store on a directory (empty: in memory).
func open(tb testing.TB, cfg Config) *Store {
	tb.Helper()
	s, err := tryOpen(tb, cfg)
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() {
		if err := s.Close(); err != nil {
			tb.Error(err)
		}
	})
	return s
}

func tryOpen(tb testing.TB, cfg Config) (*Store, error) {
	tb.Helper()
	if cfg.NodeID == "" {
		cfg.NodeID = "n1"
	}
	if cfg.Log == nil {
		cfg.Log = quiet()
	}
	if cfg.MinFree == 0 {
		cfg.MinFree = 1
	}
	return Open(tb.Context(), cfg)
}

func put(tb testing.TB, s *Store, key, value string) Result {
	tb.Helper()
	res, err := s.Apply(tb.Context(), Write{Key: key, Value: []byte(value), Expect: Any})
	if err != nil {
		tb.Fatal(err)
	}
	return res
}

func value(s *Store, key string) string {
	e, ok := s.View().Get(key)
	if !ok {
		return "none"
	}
	return string(e.Value)
}

func TestFirstWrites(t *testing.T) {
	s := open(t, Config{})
	if got := s.Revision(); got != 1 {
		t.Fatalf("an empty store has revision %d, want 1", got)
	}
	w, err := s.WatchPrefix("/a/", 1)
	if err != nil {
		t.Fatal(err)
	}
	defer w.Close()
	res, err := s.Apply(t.Context(), Write{Key: "/a/x", Value: []byte("1")})
	if err != nil || res.Revision != 2 || res.Entry.CreateRevision != 2 {
		t.Fatalf("create: %+v, %v", res, err)
	}
	res, err = s.Apply(t.Context(), Write{Key: "/a/x", Value: []byte("2")})
	if !errors.Is(err, ErrConflict) || string(res.Current.Value) != "1" {
		t.Fatalf("create again: %+v, %v", res, err)
	}
	put(t, s, "/b/x", "")
	if _, err = s.Apply(t.Context(), Write{Key: "/a/x", Expect: 2, Delete: true}); err != nil {
		t.Fatal(err)
	}
	if err := s.Barrier(t.Context()); err != nil {
		t.Fatal(err)
	}
	evs, upTo, err := w.Next(t.Context(), nil)
	if err != nil || len(evs) != 2 || upTo != 4 || evs[0].Revision != 2 || evs[1].Revision != 4 || evs[1].Entry != nil {
		t.Fatalf("events %+v up to %d, %v", evs, upTo, err)
	}
	old, err := s.ViewAt(2)
	if err != nil || old.Count("", "") != 1 {
		t.Fatalf("view at 2: %d keys, %v", old.Count("", ""), err)
	}
	if n := s.View().Count("/a/", "/a0"); n != 0 {
		t.Fatalf("%d keys below /a/ now", n)
	}
}

func TestRefusedWrites(t *testing.T) {
	s := open(t, Config{})
	for _, w := range []Write{
		{},
		{Key: strings.Repeat("k", machine.MaxKey+1)},
		{Key: "k", Value: make([]byte, machine.MaxValue+1)},
		{Key: "k", TTL: -1},
	} {
		if _, err := s.Apply(t.Context(), w); err == nil {
			t.Errorf("a write with a key of %d and a value of %d bytes, TTL %d was taken", len(w.Key), len(w.Value), w.TTL)
		}
	}
	if _, err := s.Apply(t.Context(), Write{Key: "none", Delete: true, Expect: Any}); !errors.Is(err, ErrConflict) {
		t.Errorf("deleting what does not exist: %v, want ErrConflict", err)
	}
	if s.Revision() != 1 {
		t.Errorf("refused writes moved the revision to %d", s.Revision())
	}
}

// Everything survives a restart, also when snapshots were taken and the log was cut meanwhile.
func TestReopen(t *testing.T) {
	cfg := Config{Dir: t.TempDir(), Lab: lab.Lab{Segment: 16 << 10}, tune: func(c *raft.Config) {
		c.SnapshotThreshold, c.TrailingLogs, c.SnapshotInterval = 20, 10, 5*time.Millisecond
	}}
	want := map[string]string{}
	for round := range 5 {
		s := open(t, cfg)
		rev := s.Revision()
		for i := range 100 {
			key, val := "/k/"+string(rune('a'+i%26)), strings.Repeat("v", i)+string(rune('0'+round))
			if res := put(t, s, key, val); res.Revision <= rev {
				t.Fatalf("revision %d after %d", res.Revision, rev)
			} else {
				rev = res.Revision
			}
			want[key] = val
		}
		if err := s.Close(); err != nil {
			t.Fatal(err)
		}
		s = open(t, cfg)
		if s.Revision() != rev {
			t.Fatalf("round %d: revision %d after the restart, want %d", round, s.Revision(), rev)
		}
		for k, v := range want {
			if got := value(s, k); got != v {
				t.Fatalf("round %d: %s is %q, want %q", round, k, got, v)
			}
		}
		if err := s.Close(); err != nil {
			t.Fatal(err)
		}
	}
}

func TestClosed(t *testing.T) {
	s := open(t, Config{Dir: t.TempDir()})
	w, err := s.Watch(1)
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan error, 2)
	go func() {
		_, _, err := w.Next(t.Context(), nil)
		done <- err
	}()
	go func() { done <- s.WaitRevision(t.Context(), 100) }()
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	for range 2 {
		if err := <-done; !errors.Is(err, ErrClosed) {
			t.Errorf("waiting call: %v, want ErrClosed", err)
		}
	}
	if _, err := s.Apply(t.Context(), Write{Key: "k"}); !errors.Is(err, ErrClosed) {
		t.Errorf("write: %v, want ErrClosed", err)
	}
	if err := s.Barrier(t.Context()); !errors.Is(err, ErrClosed) {
		t.Errorf("barrier: %v, want ErrClosed", err)
	}
	if _, err := s.Watch(1); !errors.Is(err, ErrClosed) {
		t.Errorf("watch: %v, want ErrClosed", err)
	}
	w.Close()
	w.Close()
}

// Close under load: every call comes back, and what was acknowledged is there.
func TestCloseUnderWriters(t *testing.T) {
	cfg := Config{Dir: t.TempDir()}
	for range 10 {
		s := open(t, cfg)
		var wg sync.WaitGroup
		var acked sync.Map
		started := make(chan struct{}, 16)
		for w := range 16 {
			wg.Go(func() {
				for i := 0; ; i++ {
					key := fmt.Sprintf("/%d/%d", w, i%10)
					res, err := s.Apply(context.WithoutCancel(t.Context()), Write{Key: key, Expect: Any})
					if err != nil {
						if !errors.Is(err, ErrClosed) && !errors.Is(err, ErrNoLeader) {
							t.Error(err)
						}
						return
					}
					acked.Store(key, res.Revision)
					if i == 0 {
						started <- struct{}{}
					}
				}
			})
		}
		for range 16 {
			<-started
		}
		if err := s.Close(); err != nil {
			t.Fatal(err)
		}
		wg.Wait()
		s = open(t, cfg)
		acked.Range(func(key, rev any) bool {
			if e, ok := s.View().Get(key.(string)); !ok || e.ModRevision < rev.(uint64) {
				t.Errorf("%s is %+v, acknowledged at %d", key, e, rev)
			}
			return true
		})
		if err := s.Close(); err != nil {
			t.Fatal(err)
		}
	}
}

// After an error that only reading the log again can clear up, Raft is started again under a state
// machine that goes on serving.
func TestLogFailureHeals(t *testing.T) {
	s := open(t, Config{Dir: t.TempDir()})
	w, err := s.Watch(s.Revision())
	if err != nil {
		t.Fatal(err)
	}
	defer w.Close()
	rev := s.Revision()
	for i := range 5 {
		before := s.instance()
		before.Stores.Break(errors.New("injected"))
		if err := s.Barrier(t.Context()); err != nil {
			t.Fatal(err)
		}
		// The first try may meet the failure and say that its outcome is unknown.
		for {
			res, err := s.Apply(t.Context(), Write{Key: "/a", Value: []byte{byte(i)}, Expect: Any})
			if err == nil {
				if res.Revision <= rev {
					t.Fatalf("revision %d after %d", res.Revision, rev)
				}
				rev = res.Revision
				break
			}
			pause(t.Context(), 10*time.Millisecond)
		}
		if s.instance() == before {
			t.Fatal("Raft was not started again")
		}
	}
	seen := uint64(1)
	for seen < rev {
		evs, upTo, err := w.Next(t.Context(), nil)
		if err != nil {
			t.Fatal(err)
		}
		for _, ev := range evs {
			if ev.Revision != seen+1 {
				t.Fatalf("event %d after %d", ev.Revision, seen)
			}
			seen = ev.Revision
		}
		seen = max(seen, upTo)
	}
}

// An only voter has everything before Raft runs, so also when Raft cannot write.
func TestRestoreBeforeRaft(t *testing.T) {
	cfg := Config{Dir: t.TempDir(), NodeID: "n1", Log: quiet()}
	s := open(t, cfg)
	for i := range 100 {
		put(t, s, fmt.Sprint("/", i), "v")
		if i == 50 {
			if err := s.instance().Raft.Snapshot().Error(); err != nil {
				t.Fatal(err)
			}
		}
	}
	want := s.Revision()
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	h, err := cfg.take()
	if err != nil {
		t.Fatal(err)
	}
	defer h.Close()
	st, err := h.Open()
	if err != nil {
		t.Fatal(err)
	}
	defer st.Close()
	m := newMachine(cfg.withDefaults(), "")
	if err := st.Restore(m); err != nil {
		t.Fatal(err)
	}
	if got := m.View(); got.Revision() != want || got.Count("", "") != 100 {
		t.Errorf("restored revision %d with %d keys, want %d with 100", got.Revision(), got.Count("", ""), want)
	}
}
