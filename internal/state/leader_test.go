package state

import (
	"context"
	"testing"
	"time"

	"github.com/hashicorp/raft"
)

// A leader hands over to one that is cut off at that moment, loses its office, and is elected again while
// the call to that one still hangs: it serves.
func TestALeaderAgainServesWhileItsHandOverHangs(t *testing.T) {
	elected := 0
	for range 30 {
		simulate(t, false, func(c *sim) {
			c.first(3)
			l := c.leader()
			in := c.nodes[name(l)].get().instance()
			c.net.Cut(func(string, string) bool { return true })
			go func() { _ = in.HandOver(context.Background()) }()
			elapse(800 * time.Millisecond)
			lost := in.Raft.State() != raft.Leader
			c.net.Split(name((l + 2) % 3))
			other := c.nodes[name((l+1)%3)].get().instance()
			c.within(10*time.Second, "an election", func() bool {
				return in.Raft.State() == raft.Leader || other.Raft.State() == raft.Leader
			})
			if lost && in.Raft.State() == raft.Leader {
				elected++
				c.write(l, "/x", "y", 15*time.Second)
			}
			c.net.Cut(nil)
			c.steady(3)
		})
		if elected == 3 {
			return
		}
	}
	if elected == 0 {
		t.Error("no leader was elected again")
	}
}
