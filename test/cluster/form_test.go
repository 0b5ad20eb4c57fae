//go:build e2e

package cluster

import (
	"context"
	"fmt"
	"testing"
	"time"
)

// TestForm begins a swarm on one of three machines, or more, and pastes the join command on the others.
// Three are ready in 10 s; all answer the same, and share the work.
func TestForm(t *testing.T) {
	n := nodes(t, 3)
	c := machines(t, n)
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	w := start(t)
	check(t, c.Form(ctx))
	// Three in 10 s. More of them start on the same processors here, with a second of work each.
	bound := 10*time.Second + time.Duration(n-3)*time.Second
	w.until(t, fmt.Sprintf("%d machines became %d ready nodes", n, n), bound, func() error { return allReady(t.Context(), c.Hosts, n) })

	apply(t, c.Hosts[1], fmt.Sprintf(stateless, 2*n)) // on any node, not only the first
	eventually(t, time.Minute, func() error { return inEndpoints(t.Context(), c.Hosts[2], "web", 2*n, c.Hosts) })
	list, err := pods(t.Context(), c.Hosts[0], "web")
	check(t, err)
	spread := map[string]int{}
	for _, p := range list {
		spread[p.Spec.NodeName]++
	}
	for _, h := range c.Hosts {
		if spread[h.Name] != 2 {
			t.Errorf("%d pods on %d nodes: %v", 2*n, n, spread)
			break
		}
	}
	settled(t, c.Hosts)

	// The same through kubectl, as people look at it.
	eventually(t, 30*time.Second, func() error {
		var first string
		for i, h := range c.Hosts {
			out, errOut, err := h.Psctl(t.Context(), "", "get", "nodes,pods,deployments,replicasets,services,endpointslices,serviceaccounts", "-A", "-o", "yaml")
			if err != nil {
				return fmt.Errorf("%s: %w: %s", h.Name, err, errOut)
			}
			if i == 0 {
				first = out
			} else if out != first {
				return fmt.Errorf("kubectl get on %s and on %s differ:\n%s\n---\n%s", c.Hosts[0].Name, h.Name, first, out)
			}
		}
		return nil
	})
}
