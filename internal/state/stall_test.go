package state

import (
	"context"
	"errors"
	"testing"
	"time"
)

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
