package share

import (
	"sync"
	"time"
)

// Turns lets one replica of a lineage hand over at a time: the next one has little left to say.
type Turns struct {
	mu    sync.Mutex
	taken map[string]turn // by lineage
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

// End gives a turn back.
func (t *Turns) End(lineage, server string) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.taken[lineage].server == server {
		delete(t.taken, lineage)
	}
}
