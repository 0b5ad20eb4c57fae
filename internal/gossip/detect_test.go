package gossip

import (
	"fmt"
	"net/netip"
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
			inCluster(t, tt.n, 0.01, func(t *testing.T, c *cluster) {
				var sum, worst time.Duration
				for range tt.rounds {
					last := tt.n - 1
					c.all[last].host.unplug()
					go func(x *node) { x.end() }(c.all[last])
					c.all[last] = nil
					took := c.within(tt.max, "everyone knows of the death", func() bool {
						return c.each(func(x *node) bool { return x.member(nodeName(last)).State == Dead })
					})
					sum, worst = sum+took, max(worst, took)
					c.start(last, address(last))
					c.join(last, 0)
					c.within(5*time.Second, "it is back", func() bool { return c.agree(tt.n) })
					time.Sleep(5 * time.Second)
				}
				t.Logf("%d members: known to all after %v on average, %v at worst", tt.n, sum/time.Duration(tt.rounds), worst)
			})
		})
	}
}

// TestFewSurvivors measures how long the survivors of many take until they know that they are alone.
func TestFewSurvivors(t *testing.T) {
	for _, tt := range []struct {
		n, left int
		max     time.Duration
	}{
		{3, 1, 20 * time.Second},
		{5, 1, 20 * time.Second},
		{5, 2, 20 * time.Second},
		{50, 1, 200 * time.Second},
		{50, 10, 200 * time.Second},
		{50, 25, 200 * time.Second},
	} {
		t.Run(fmt.Sprintf("%d of %d", tt.left, tt.n), func(t *testing.T) {
			inCluster(t, tt.n, 0.01, func(t *testing.T, c *cluster) {
				survives := map[netip.AddrPort]bool{}
				for i := range tt.left {
					survives[c.addr(i)] = true
				}
				c.net.split(func(a netip.AddrPort) bool { return survives[a] })
				few := c.all[:tt.left]
				took := c.within(tt.max, "the few know", func() bool {
					for _, x := range few {
						if x.count(Alive) != tt.left {
							return false
						}
					}
					return true
				})
				t.Logf("%d of %d know after %v", tt.left, tt.n, took)
				c.net.split(nil)
				took = c.within(60*time.Second, "all see all again", func() bool { return c.agree(tt.n) })
				t.Logf("healed after %v", took)
			})
		})
	}
}
