package state

import (
	"errors"
	"log/slog"
	"testing"

	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func openMem(t testing.TB) *Store {
	t.Helper()
	s, err := Open(t.Context(), Config{NodeID: "n1", Log: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	})
	return s
}

func TestFirstWrites(t *testing.T) {
	s := openMem(t)
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
	if res, err = s.Apply(t.Context(), Write{Key: "/a/x", Value: []byte("2")}); !errors.Is(err, ErrConflict) || string(res.Current.Value) != "1" {
		t.Fatalf("create again: %+v, %v", res, err)
	}
	if _, err = s.Apply(t.Context(), Write{Key: "/b/x", Expect: Any}); err != nil {
		t.Fatal(err)
	}
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
