//go:build e2e

package cluster

import (
	"fmt"
	"slices"
	"testing"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/podman-swarm/podman-swarm/test/lab"
)

// TestDrill cuts the power of the node with most pods, again and again, and measures until all of
// them run elsewhere and are in the Service's endpoints.
func TestDrill(t *testing.T) {
	n := nodes(t, 3)
	replicas := 2 * n
	c := swarm(t, n)
	apply(t, c.Hosts[0], fmt.Sprintf(stateless, replicas))
	eventually(t, time.Minute, func() error { return inEndpoints(t.Context(), c.Hosts[0], "web", replicas, c.Hosts) })
	var took, detected []time.Duration
	for round := range rounds(20, 5) {
		victim := busiest(t, c)
		survivors := c.Except(victim)
		doomed := onThem(t, []*lab.Host{victim})
		check(t, allReady(t.Context(), c.Hosts, n)) // still: there is something to detect, and to replace
		w := start(t)
		check(t, c.Crash(t.Context(), victim))
		eventually(t, time.Minute, func() error { return notReady(t, survivors[0], victim) })
		detected = append(detected, time.Since(w.begun))
		took = append(took, w.until(t, fmt.Sprintf("drill %d: %d pods of %s replaced", round+1, doomed, victim.Name), 8*time.Second, func() error {
			return inEndpoints(t.Context(), survivors[round%len(survivors)], "web", replicas, survivors)
		}))
		check(t, c.Boot(t.Context(), victim))
		eventually(t, time.Minute, func() error { return allReady(t.Context(), c.Hosts, n) })
		onlyOnce(t, victim, "web")
	}
	slices.Sort(took)
	slices.Sort(detected)
	last := len(took) - 1
	t.Logf("%d drills, node dead to replacements in endpoints: median %s, worst %s; of that detection: median %s, worst %s",
		len(took), took[len(took)/2].Round(time.Millisecond), took[last].Round(time.Millisecond), detected[len(took)/2].Round(time.Millisecond), detected[last].Round(time.Millisecond))
}

// busiest is the host on which most pods run.
func busiest(t *testing.T, c *lab.Cluster) *lab.Host {
	t.Helper()
	most := slices.MaxFunc(c.Hosts, func(a, b *lab.Host) int {
		return onThem(t, []*lab.Host{a}) - onThem(t, []*lab.Host{b})
	})
	if onThem(t, []*lab.Host{most}) == 0 {
		t.Fatal("no pod runs")
	}
	return most
}

func notReady(t *testing.T, via, victim *lab.Host) error {
	t.Helper()
	node, err := client(t, via).CoreV1().Nodes().Get(t.Context(), victim.Name, metav1.GetOptions{})
	if err == nil && nodeReady(node) {
		err = fmt.Errorf("%s still calls %s ready", via.Name, victim.Name)
	}
	return err
}
