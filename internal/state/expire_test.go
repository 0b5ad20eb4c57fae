package state

import (
	"errors"
	"fmt"
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

// pass lets virtual time go by.
func pass(d time.Duration) { <-time.After(d) }

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
		pass(9 * time.Second)
		if n := s.View().Count("", ""); n != 1001 {
			t.Fatalf("%d keys after 9 s, want 1001", n)
		}
		pass(3 * time.Second)
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
		pass(55 * time.Second)
		if n := s.View().Count("", ""); n != 2 {
			t.Fatalf("%d keys after 67 s, want 2", n)
		}
		if e, ok := s.View().Get("/e/7"); !ok || e.ModRevision != res.Revision {
			t.Fatalf("a renewed key is %+v", e)
		}
		pass(601 * time.Second)
		if _, ok := s.View().Get("/e/7"); ok {
			t.Fatal("a renewed key outlived its 600 s")
		}
	})
}

// Whoever renews a key just as it expires keeps it.
func TestExpiryAgainstRenewal(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := open(t, Config{})
		const n = 200
		for i := range n {
			if _, err := s.Apply(t.Context(), Write{Key: fmt.Sprint("/", i), TTL: 10}); err != nil {
				t.Fatal(err)
			}
		}
		e, _ := s.View().Get("/0")
		pass(time.Until(time.Unix(e.Expires, 0)))
		var wg sync.WaitGroup
		for i := range n {
			wg.Go(func() {
				if _, err := s.Apply(t.Context(), Write{Key: fmt.Sprint("/", i), Expect: Any, TTL: 1000}); err != nil {
					t.Error(err)
				}
			})
		}
		wg.Wait()
		pass(5 * time.Second)
		if got := s.View().Count("", ""); got != n {
			t.Errorf("%d of %d renewed keys are there", got, n)
		}
	})
}

// History is there for the retained age, and gone some time after, without any write.
func TestRetention(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := open(t, Config{Retain: Retention{Age: 5 * time.Minute, Events: 100}})
		res := put(t, s, "/a", "1")
		put(t, s, "/a", "2")
		pass(5*time.Minute - time.Second)
		v, err := s.ViewAt(res.Revision)
		if err != nil || v.Count("", "") != 1 {
			t.Fatalf("view of just under 5 minutes ago: %v", err)
		}
		pass(6 * time.Minute)
		if _, err := s.ViewAt(res.Revision); !errors.Is(err, ErrCompacted) {
			t.Fatalf("view of 11 minutes ago: %v, want ErrCompacted", err)
		}
		if _, err := s.Watch(res.Revision); !errors.Is(err, ErrCompacted) {
			t.Fatalf("watch from 11 minutes ago: %v, want ErrCompacted", err)
		}
		if _, err := s.ViewAt(s.Revision()); err != nil {
			t.Fatalf("view of now: %v", err)
		}
		for i := range 1000 {
			put(t, s, "/a", fmt.Sprint(i))
		}
		if _, err := s.ViewAt(s.Revision() - 100); err != nil {
			t.Fatalf("100 events back: %v", err)
		}
		if _, err := s.ViewAt(s.Revision() - 120); !errors.Is(err, ErrCompacted) {
			t.Fatalf("120 events back: %v, want ErrCompacted", err)
		}
	})
}
