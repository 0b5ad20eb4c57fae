package gossip

import (
	"fmt"
	"testing"
	"time"
)

// TestDetection measures how long it takes until every member knows that one is dead.
func TestDetection(t *testing.T) {
	for _, tt := range []struct {
		n      int
		rounds int
		max    time.Duration
	}{
		{2, 5, 6 * time.Second},
		{3, 5, 5 * time.Second},
		{5, 5, 5 * time.Second},
		{10, 5, 5 * time.Second},
		{50, 3, 8 * time.Second},
	} {
		t.Run(fmt.Sprint(tt.n), func(t *testing.T) {
			inCluster(t, tt.n, 0.01, func(c *cluster) {
				t := c.t
				var sum, worst time.Duration
				for range tt.rounds {
					last := tt.n - 1
					c.all[last].host.Unplug(true)
					go func(x *node) { x.end() }(c.all[last])
					c.all[last] = nil
					took := c.within(tt.max, "everyone knows of the death", func() bool {
						return c.each(func(x *node) bool { return x.member(nodeName(last)).State == Dead })
					})
					sum, worst = sum+took, max(worst, took)
					c.start(last, address(last))
					c.join(last, 0)
					c.within(5*time.Second, "it is back", func() bool { return c.agree(tt.n) })
					pause(5 * time.Second)
				}
				t.Logf("%d members: known to all after %v on average, %v at worst", tt.n, sum/time.Duration(tt.rounds), worst)
			})
		})
	}
}

// TestPartition measures how long the members on one side take until they know that they are among
// themselves, and how long until all see all again when the network has healed.
func TestPartition(t *testing.T) {
	for _, tt := range []struct {
		n, left int
		max     time.Duration
	}{
		{3, 1, 10 * time.Second},
		{5, 1, 13 * time.Second},
		{5, 2, 8 * time.Second},
		{50, 1, 120 * time.Second},
		{50, 10, 30 * time.Second},
		{50, 25, 16 * time.Second},
	} {
		t.Run(fmt.Sprintf("%d of %d", tt.left, tt.n), func(t *testing.T) {
			inCluster(t, tt.n, 0.01, func(c *cluster) {
				t := c.t
				c.split(tt.left)
				few := c.all[:tt.left]
				took := c.within(tt.max, "the few know", func() bool {
					for _, x := range few {
						if x.count(Alive) != tt.left {
							return false
						}
					}
					return true
				})
				// Longer than memberlist remembers the dead.
				pause(2 * gossipToTheDead)
				c.split(0)
				healed := c.within(6*time.Second, "all see all again", func() bool { return c.agree(tt.n) })
				t.Logf("%d of %d know after %v, and see the others again after %v", tt.left, tt.n, took, healed)
			})
		})
	}
}

// TestNoFalseAlarm loses one datagram in twenty for minutes: nobody is given up.
func TestNoFalseAlarm(t *testing.T) {
	inCluster(t, 20, 0.05, func(c *cluster) {
		t := c.t
		changed := c.all[0].Changed()
		select {
		case <-changed:
			t.Errorf("something has changed: %v", c.all[0].Members())
		case <-time.After(5 * time.Minute):
		}
		if !c.agree(20) {
			t.Error("not everyone is thought alive")
		}
	})
}
