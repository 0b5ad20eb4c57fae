package state

import (
	"context"
	"fmt"
	"math/rand/v2"
	"os"
	"strconv"
	"sync"
	"testing"
	"time"

	"github.com/hashicorp/raft"
)

// Nodes die and return, the network splits and heals, at random, under writers: in the end all
// replicas hold the same and nothing that was acknowledged is missing. PSW_TEST_SEED repeats one run.
func TestChaos(t *testing.T) {
	seeds := []uint64{1, 2, 3, 4, 5, 6}
	if n, err := strconv.Atoi(os.Getenv("PSW_TEST_SEEDS")); err == nil {
		seeds = nil
		for i := range n {
			seeds = append(seeds, uint64(1000+i))
		}
	}
	if seed, err := strconv.ParseUint(os.Getenv("PSW_TEST_SEED"), 10, 64); err == nil {
		seeds = []uint64{seed}
	}
	for _, seed := range seeds {
		t.Run(fmt.Sprint(seed), func(t *testing.T) {
			simulate(t, true, func(c *sim) {
				if seed%2 == 1 {
					c.tune = func(c *raft.Config) {
						c.SnapshotThreshold, c.TrailingLogs, c.SnapshotInterval = 30, 10, 2*time.Second
					}
				}
				c.chaos(rand.New(rand.NewPCG(seed, 7)), 3+int(seed%5))
			})
		})
	}
}

func (c *sim) chaos(r *rand.Rand, n int) {
	c.t.Helper()
	c.first(n)
	ctx, cancel := context.WithCancel(c.t.Context())
	var wg sync.WaitGroup
	for i := range n {
		wg.Go(func() {
			for k := 0; ctx.Err() == nil; k++ {
				if s := c.nodes[name(i)].get(); s != nil {
					_ = c.apply(ctx, s, fmt.Sprintf("/n%d/%d", i, k), fmt.Sprint(k))
				}
				pause(ctx, 200*time.Millisecond)
			}
		})
	}
	for range 12 {
		i := r.IntN(n)
		switch up := c.nodes[name(i)].get() != nil; {
		case up && len(c.running()) > 1 && r.IntN(3) == 0:
			c.t.Logf("kill %d", i)
			c.kill(i)
		case !up && r.IntN(2) == 0:
			c.t.Logf("restart %d", i)
			c.restart(i)
		case r.IntN(3) == 0:
			c.t.Log("heal")
			c.net.Cut(nil)
		case r.IntN(4) == 0:
			c.net.Reset()
		default:
			side := map[string]int{}
			for k := range n {
				side[name(k)] = r.IntN(3)
			}
			c.t.Logf("split %v", side)
			c.net.Cut(func(a, b string) bool { return side[a] != side[b] })
		}
		elapse(time.Duration(r.IntN(15000)) * time.Millisecond)
	}
	c.t.Log("the end")
	c.net.Cut(nil)
	for i := range n {
		if c.nodes[name(i)].get() == nil {
			c.restart(i)
		}
	}
	elapse(5 * time.Second)
	cancel()
	wg.Wait()
	c.t.Logf("%d writes were acknowledged; all is well after %v", len(c.acked), c.steady(n))
	c.equal()
}
