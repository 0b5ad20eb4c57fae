package share_test

import (
	"context"
	"errors"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/podman-swarm/podman-swarm/internal/state/share"
)

// Whoever comes while a round runs gets the result of the next one, together with all others.
func TestRoundsAreShared(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var rounds atomic.Uint64
		r := share.Rounds{Closed: errors.New("closed")}
		r.Do = func() (uint64, error) {
			<-time.After(time.Second)
			return rounds.Add(1), nil
		}
		var wg sync.WaitGroup
		for i := range 100 {
			want := uint64(1)
			if i > 0 {
				want = 2
			}
			wg.Go(func() {
				if got, err := r.Wait(t.Context()); got != want || err != nil {
					t.Errorf("caller %d: round %d, %v; want %d", i, got, err, want)
				}
			})
			if i == 0 {
				synctest.Wait() // the first round runs
			}
		}
		wg.Wait()
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		if _, err := r.Wait(ctx); !errors.Is(err, context.Canceled) {
			t.Errorf("gave up: %v", err)
		}
		r.Close()
		if _, err := r.Wait(t.Context()); !errors.Is(err, r.Closed) {
			t.Errorf("closed: %v", err)
		}
	})
}

func TestTurns(t *testing.T) {
	var turns share.Turns
	now := time.Unix(1000, 0)
	for _, tt := range []struct {
		lineage, server string
		after           time.Duration
		want            bool
	}{
		{"l1", "a", 0, true},
		{"l1", "b", 4 * time.Second, false},
		{"l2", "b", 4 * time.Second, true}, // another lineage has turns of its own
		{"l1", "a", 4 * time.Second, true}, // renewed
		{"l1", "b", 8 * time.Second, false},
		{"l1", "b", 9 * time.Second, true}, // nothing was heard of a
		{"l1", "a", 10 * time.Second, false},
	} {
		if got := turns.Take(tt.lineage, tt.server, now.Add(tt.after)); got != tt.want {
			t.Errorf("%s takes a turn of %s after %v: %v", tt.server, tt.lineage, tt.after, got)
		}
	}
	turns.End("l1", "a") // it has none
	if turns.Take("l1", "a", now.Add(10*time.Second)) {
		t.Error("ended by one who had no turn")
	}
	turns.End("l1", "b")
	if !turns.Take("l1", "a", now.Add(10*time.Second)) {
		t.Error("not ended")
	}
}

// Many that wait for their turn have it one after another, without a pause.
func TestTurnsFollowAtOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var turns share.Turns
		var wg sync.WaitGroup
		var busy atomic.Int32
		start := time.Now()
		for i := range 20 {
			wg.Go(func() {
				server := string(rune('a' + i))
				if !turns.Wait(t.Context(), "l1", server) || busy.Add(1) != 1 {
					t.Errorf("%s has no turn of its own", server)
				}
				<-time.After(10 * time.Millisecond)
				busy.Add(-1)
				turns.End("l1", server)
			})
		}
		wg.Wait()
		if took := time.Since(start); took != 200*time.Millisecond {
			t.Errorf("20 turns of 10 ms took %v", took)
		}
		turns.Take("l1", "gone", time.Now())
		if turns.Wait(t.Context(), "l1", "a") {
			t.Error("a turn that is another's")
		}
		if kept := time.Since(start) - 200*time.Millisecond; kept != time.Second {
			t.Errorf("who asks is kept for %v", kept)
		}
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		if turns.Wait(ctx, "l1", "a") {
			t.Error("a turn for one that is gone")
		}
	})
}
