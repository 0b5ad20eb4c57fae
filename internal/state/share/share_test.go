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
