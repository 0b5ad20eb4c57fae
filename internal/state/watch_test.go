package state

import (
	"context"
	"errors"
	"fmt"
	"testing"
	"testing/synctest"
	"time"
)

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
		if len(got) != 0 {
			t.Fatal("the watch returned for keys of others")
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
