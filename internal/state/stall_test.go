package state

import (
	"context"
	"errors"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/podman-swarm/podman-swarm/internal/state/disk"
)

// hung is a disk that does not answer.
type hung struct {
	mu      sync.Mutex
	dir     string        // empty: all answer
	answers chan struct{} // closed when it answers again
}

func (h *hung) probe(_ disk.Op, file string) error {
	h.mu.Lock()
	hangs, answers := h.dir != "" && strings.HasPrefix(file, h.dir), h.answers
	h.mu.Unlock()
	if hangs {
		<-answers
	}
	return nil
}

// hang has a replica's disk not answer until it is told to, at the latest when the test ends.
func (c *cluster) hang(i int) (answer func()) {
	h := &c.hung
	h.mu.Lock()
	defer h.mu.Unlock()
	h.dir, h.answers = c.dirs[i]+"/", make(chan struct{})
	answer = sync.OnceFunc(func() {
		h.mu.Lock()
		defer h.mu.Unlock()
		h.dir = ""
		close(h.answers)
	})
	c.t.Cleanup(answer)
	return answer
}

// The leader's disk hangs, without an error: another leads within seconds, what was acknowledged is kept, and the
// one whose disk answers again follows. In real time: what waits for the log's lock stops virtual time.
func TestLeaderWhoseDiskHangs(t *testing.T) {
	c := newCluster(t, nil)
	l := c.leader()
	before := put(t, c.store(l), "/before", "x")
	answer := c.hang(l)
	begin := time.Now()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	other := c.store((l + 1) % 3)
	res, err := other.Apply(ctx, Write{Key: "/meanwhile", Value: []byte("x"), Expect: Any})
	for errors.Is(err, ErrNoLeader) { // it had reached the leader
		res, err = other.Apply(ctx, Write{Key: "/meanwhile", Value: []byte("x"), Expect: Any})
	}
	took := time.Since(begin)
	if err != nil || took > 15*time.Second || res.Revision <= before.Revision {
		t.Errorf("written after %v: %+v, %v", took, res, err)
	}
	t.Logf("writable after %v", took)
	if leads, _ := c.store(l).Leads(); leads {
		t.Error("it leads still")
	}
	answer()
	c.equal(res.Revision)
	if leads, _ := c.store(c.leader()).Leads(); !leads {
		t.Error("nobody leads")
	}
	c.equal(put(t, c.store(l), "/through-it", "x").Revision)
}
