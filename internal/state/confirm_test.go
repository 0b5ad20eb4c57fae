package state

import (
	"context"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/hashicorp/raft"
)

// A leader that was cut off with replicas that have no vote, and whose lease has not ended yet, vouches
// for nothing: the others may have written since.
func TestOnlyVotersConfirm(t *testing.T) {
	const runs = 10
	told := 0
	for range runs {
		simulate(t, false, func(c *sim) {
			if c.cutOffLeader() {
				told++
			}
		})
	}
	if told < runs/2 {
		t.Errorf("in %d of %d runs only was there another leader before the lease ended", told, runs)
	}
}

// cutOffLeader reports whether the others had written while the leader still believed in itself.
func (c *sim) cutOffLeader() bool {
	c.tune = func(r *raft.Config) {
		if strings.HasPrefix(string(r.LocalID), name(0)) {
			r.HeartbeatTimeout, r.ElectionTimeout, r.LeaderLeaseTimeout = 3*time.Second, 3*time.Second, 3*time.Second
		}
	}
	c.first(7)
	c.write(0, "/a", "before", time.Second)
	old := c.nodes[name(0)].get()
	side := []string{name(0)}
	for _, r := range old.Status().Replicas {
		if !r.Votes {
			node, _, _ := strings.Cut(r.Server, ".")
			side = append(side, node)
		}
	}
	if len(side) != 3 || !old.Status().Leads {
		c.t.Fatalf("the first node leads and two have no vote: %v", side)
	}
	other := slices.IndexFunc([]string{name(0), name(1), name(2), name(3)}, func(n string) bool { return !slices.Contains(side, n) })
	c.net.Split(side...)
	writing, end := context.WithTimeout(c.t.Context(), 2*time.Second)
	defer end()
	for c.try(writing, other, "/a", "after") != nil {
		if writing.Err() != nil {
			return false
		}
		pause(writing, 10*time.Millisecond)
	}
	asking, end := context.WithTimeout(c.t.Context(), 800*time.Millisecond)
	defer end()
	if err := old.Barrier(asking); err == nil {
		c.t.Errorf("the leader of before has vouched that %q is the newest", value(old, "/a"))
	}
	if !old.Status().Leads {
		c.t.Error("its lease has ended: this shows nothing")
	}
	c.net.Cut(nil)
	c.steady(7)
	c.equal()
	return true
}
