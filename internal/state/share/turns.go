package share

import (
	"context"
	"sync"
	"time"
)

// Turns lets one replica of a lineage hand over at a time: the next one has little left to say.
type Turns struct {
	mu    sync.Mutex
	taken map[string]turn // by lineage
	freed chan struct{}   // closed when a turn is given back; nil: nobody waits
}

type turn struct {
	server string
	until  time.Time
}

// turnLease is how long a turn lasts after the last sign of life.
const turnLease = 5 * time.Second

// Take gives or renews a server's turn.
func (t *Turns) Take(lineage, server string, now time.Time) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	if other, ok := t.taken[lineage]; ok && other.server != server && now.Before(other.until) {
		return false
	}
	if t.taken == nil {
		t.taken = map[string]turn{}
	}
	t.taken[lineage] = turn{server, now.Add(turnLease)}
	return true
}

// turnWait bounds how long one that asks is kept: who is gone when its turn comes keeps the others waiting for a lease.
const turnWait = time.Second

// Wait takes a turn as soon as it is given back, and reports whether that was soon enough. Of many that asked again
// and again instead, the next one would come long after.
func (t *Turns) Wait(ctx context.Context, lineage, server string) bool {
	late := time.NewTimer(turnWait)
	defer late.Stop()
	for {
		t.mu.Lock()
		if t.freed == nil {
			t.freed = make(chan struct{})
		}
		freed := t.freed
		t.mu.Unlock()
		if t.Take(lineage, server, time.Now()) {
			return true
		}
		select {
		case <-freed:
		case <-late.C:
			return false
		case <-ctx.Done():
			return false
		}
	}
}

// End gives a turn back.
func (t *Turns) End(lineage, server string) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.taken[lineage].server == server {
		delete(t.taken, lineage)
		if t.freed != nil {
			close(t.freed)
			t.freed = nil
		}
	}
}
