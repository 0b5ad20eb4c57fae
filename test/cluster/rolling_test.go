//go:build e2e

package cluster

import (
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"github.com/podman-swarm/podman-swarm/test/lab"
)

// TestRollingRestart restarts the agent on each node in turn under load, then again with another
// executable. Pods do not notice, and no request fails that is tried once more. With the executable of
// another release in $SWARM_E2E_PREVIOUS the swarm is one of that release, and is upgraded to ours.
func TestRollingRestart(t *testing.T) {
	n := nodes(t, 3)
	c := machines(t, n)
	first, next := os.Getenv("SWARM_E2E_PREVIOUS"), ""
	if first == "" {
		next = anotherProgram(t, c.Hosts[0])
	}
	for _, h := range c.Hosts {
		h.Program = first
	}
	form(t, c)
	apply(t, c.Hosts[0], fmt.Sprintf(stateless, 2*n)+"---"+fmt.Sprintf(stateful, 3))
	for app, replicas := range map[string]int{"web": 2 * n, "db": 3} {
		eventually(t, time.Minute, func() error { return running(t.Context(), c.Hosts[0], app, replicas, c.Hosts) })
	}
	before := monitors(t)
	load := startLoad(t, lab.LoadConfig{Hosts: c.Hosts, Name: "rolling", Writers: 6, Rate: 100})
	for _, program := range []string{first, next} {
		for _, h := range c.Hosts {
			acknowledged(t, load, 100)
			h.Program = program
			check(t, h.RestartAgent(t.Context()))
			eventually(t, time.Minute, func() error { return allReady(t.Context(), c.Hosts, n) })
		}
	}
	acknowledged(t, load, 100)
	load.Stop()
	noneFailed(t, load)
	t.Logf("%d acknowledged writes over %d restarts", load.Count(), 2*n)
	if now := monitors(t); !slices.Equal(now, before) {
		t.Errorf("containers after the restarts\n%q, before\n%q", now, before)
	}
	settled(t, c.Hosts)
	kept(t, load, c.Hosts, nil)
}

// monitors names the containers that run, each with the process that watches it: a container that
// was started again has another one.
func monitors(t *testing.T) []string {
	t.Helper()
	containers, err := lab.Containers()
	check(t, err)
	var out []string
	for _, c := range containers {
		if c.Namespace == ns {
			out = append(out, fmt.Sprintf("%s/%s@%s %s %d", c.Pod, c.Name, c.Host, c.UID, c.PID))
		}
	}
	slices.Sort(out)
	if len(out) == 0 {
		t.Fatal("no container of a pod runs")
	}
	return out
}

// anotherProgram is a copy of the agent's executable that is not the same file: as after an upgrade.
func anotherProgram(t *testing.T, h *lab.Host) string {
	t.Helper()
	old, err := os.Open(h.Bin("podman-swarm"))
	check(t, err)
	defer old.Close()
	dir := filepath.Join(filepath.Dir(h.Bin("podman-swarm")), "upgrade")
	check(t, os.MkdirAll(dir, 0o755))
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	path := filepath.Join(dir, "podman-swarm")
	fresh, err := os.OpenFile(path, os.O_CREATE|os.O_TRUNC|os.O_WRONLY, 0o755)
	check(t, err)
	_, err = io.Copy(fresh, old)
	check(t, err)
	_, err = fresh.WriteString("another build\n")
	check(t, err)
	check(t, fresh.Close())
	return path
}
