package gossip

import (
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/podman-swarm/podman-swarm/internal/agent/fence"
	"github.com/podman-swarm/podman-swarm/internal/control/liveness"
)

// afterHook is how long a container may still run when a preStop hook has used its grace up.
const afterHook = 2 * time.Second

// The sum of ADR 0010: who is cut off has stopped what must not run twice before the others take it as
// ended. One node alone is the slowest to doubt the others: it probes one after another, nobody confirms its
// suspicions, and it probes more slowly since it cannot trust its own network.
func TestCutOffStopBeforeTheyAreReplaced(t *testing.T) {
	for _, n := range []int{4, 5, 7, 10, 20, 50} {
		for _, k := range slices.Compact([]int{1, 2, (n - 1) / 2}) {
			for _, loss := range []float64{0, 0.05} {
				if 2*k >= n || k > 2 && n == 50 && loss == 0 {
					continue
				}
				t.Run(fmt.Sprintf("%d of %d, loss %v", k, n, loss), func(t *testing.T) {
					inCluster(t, n, loss, func(c *cluster) {
						doubt, dead := c.cutOff(k)
						stopped := doubt + fence.CutAfter + fence.StopWithin + afterHook
						replaced := dead + liveness.DefaultRules().Replaces(n)
						t.Logf("all of them doubt half after %v, the first is dead after %v: %v to spare", doubt, dead, replaced-stopped)
						if replaced < stopped+2*time.Second {
							t.Errorf("the last pod has ended after %v, the first is replaced after %v", stopped, replaced)
						}
					})
				})
			}
		}
	}
}

// cutOff cuts the first k members off and returns how long it takes until each of them sees no majority, and
// until somebody on the other side calls the first of them dead.
func (c *cluster) cutOff(k int) (doubt, dead time.Duration) {
	c.t.Helper()
	n := len(c.all)
	c.split(k)
	at := time.Now()
	sees := func(x *node) bool { return 2*x.count(Alive) > n }
	misses := func(x *node) bool { return x.count(Alive) < n }
	for doubt == 0 || dead == 0 {
		pause(50 * time.Millisecond)
		if doubt == 0 && !slices.ContainsFunc(c.all[:k], sees) {
			doubt = time.Since(at)
		}
		if dead == 0 && slices.ContainsFunc(c.all[k:], misses) {
			dead = time.Since(at)
		}
	}
	return doubt, dead
}
