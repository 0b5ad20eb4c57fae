package state

import (
	"context"
	"errors"
	"fmt"
	"testing"
	"testing/synctest"
	"time"
)

// The leader deletes what is due, not before, and not what was written again meanwhile.
func TestExpiry(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := open(t, Config{})
		ctx := t.Context()
		for i := range 1000 {
			if _, err := s.Apply(ctx, Write{Key: fmt.Sprint("/e/", i), TTL: 60}); err != nil {
				t.Fatal(err)
			}
		}
		if _, err := s.Apply(ctx, Write{Key: "/first", TTL: 10}); err != nil {
			t.Fatal(err)
		}
		time.Sleep(9 * time.Second)
		if n := s.View().Count("", ""); n != 1001 {
			t.Fatalf("%d keys after 9 s, want 1001", n)
		}
		time.Sleep(3 * time.Second)
		if _, ok := s.View().Get("/first"); ok {
			t.Fatal("a key outlived its 10 s")
		}
		res, err := s.Apply(ctx, Write{Key: "/e/7", Expect: Any, TTL: 600})
		if err != nil {
			t.Fatal(err)
		}
		if _, err := s.Apply(ctx, Write{Key: "/e/8", Expect: Any}); err != nil {
			t.Fatal(err)
		}
		time.Sleep(55 * time.Second)
		if n := s.View().Count("", ""); n != 2 {
			t.Fatalf("%d keys after 67 s, want 2", n)
		}
		if e, ok := s.View().Get("/e/7"); !ok || e.ModRevision != res.Revision {
			t.Fatalf("a renewed key is %+v", e)
		}
		time.Sleep(601 * time.Second)
		if _, ok := s.View().Get("/e/7"); ok {
			t.Fatal("a renewed key outlived its 600 s")
		}
	})
}

// History is there for the retained age, and gone some time after, without any write.
func TestRetention(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := open(t, Config{Retain: Retention{Age: 5 * time.Minute, Events: 100}})
		res := put(t, s, "/a", "1")
		put(t, s, "/a", "2")
		time.Sleep(5*time.Minute - time.Second)
		v, err := s.ViewAt(res.Revision)
		if err != nil || v.Count("", "") != 1 {
			t.Fatalf("view of just under 5 minutes ago: %v", err)
		}
		time.Sleep(6 * time.Minute)
		if _, err := s.ViewAt(res.Revision); !errors.Is(err, ErrCompacted) {
			t.Fatalf("view of 11 minutes ago: %v, want ErrCompacted", err)
		}
		if _, err := s.Watch(res.Revision); !errors.Is(err, ErrCompacted) {
			t.Fatalf("watch from 11 minutes ago: %v, want ErrCompacted", err)
		}
		if n := len(s.fsm.hist.events) + len(s.fsm.hist.epochs) + len(s.fsm.views.versions); n != 0 {
			t.Fatalf("%d things are kept after a quiet time", n)
		}
		if _, err := s.ViewAt(s.Revision()); err != nil {
			t.Fatalf("view of now: %v", err)
		}
		for i := range 1000 {
			put(t, s, "/a", fmt.Sprint(i))
		}
		if n := len(s.fsm.hist.events); n < 100 || n > 120 {
			t.Fatalf("%d events are kept, want about 100", n)
		}
	})
}

// A watch wakes for its prefix only, and one that rests is never told ErrCompacted for others'
// events.
func TestWatchWakesForItsPrefix(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := open(t, Config{Retain: Retention{Age: time.Minute, Events: 10}})
		w, err := s.WatchPrefix("/a/", 1)
		if err != nil {
			t.Fatal(err)
		}
		defer w.Close()
		got := make(chan []Event, 1)
		go func() {
			evs, _, err := w.Next(t.Context(), nil)
			if err != nil {
				t.Error(err)
			}
			got <- evs
		}()
		for i := range 100 {
			put(t, s, fmt.Sprint("/b/", i), "")
		}
		synctest.Wait()
		if len(w.wake) != 0 || len(got) != 0 {
			t.Fatal("the watch was woken for keys of others")
		}
		res := put(t, s, "/a/x", "1")
		if evs := <-got; len(evs) != 1 || evs[0].Revision != res.Revision {
			t.Fatalf("got %+v", evs)
		}
		// Progress without events.
		rev := put(t, s, "/b/x", "").Revision
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		evs, upTo, err := w.Next(ctx, nil)
		if len(evs) != 0 || upTo != rev || !errors.Is(err, context.DeadlineExceeded) {
			t.Fatalf("got %+v up to %d, %v, want nothing up to %d", evs, upTo, err, rev)
		}
		// One that does not read is told so.
		for range 100 {
			put(t, s, "/a/y", "")
		}
		if _, _, err := w.Next(t.Context(), nil); !errors.Is(err, ErrCompacted) {
			t.Fatalf("slow watch: %v, want ErrCompacted", err)
		}
	})
}
