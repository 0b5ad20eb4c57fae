//go:build e2e

package cluster

import (
	"fmt"
	"testing"
	"time"

	"github.com/podman-swarm/podman-swarm/test/lab"
)

// cut cuts the power of hosts under a load that runs on for `after`, and says how long each survivor
// acknowledged nothing.
func cut(t *testing.T, c *lab.Cluster, load *lab.Load, after time.Duration, victims ...*lab.Host) (w watch, gaps map[string]time.Duration) {
	t.Helper()
	acknowledged(t, load, 200)
	w = start(t)
	check(t, c.Crash(t.Context(), victims...))
	pause(t, after)
	end := time.Now()
	load.Stop()
	gaps = map[string]time.Duration{}
	for _, h := range c.Except(victims...) {
		gaps[h.Name] = load.Gap(h.Name, w.begun, end)
	}
	t.Logf("%d acknowledged writes, %d failed twice", load.Count(), len(load.Failed()))
	return w, gaps
}

// back powers victims on again; then nothing is lost anywhere and all nodes are the same.
func back(t *testing.T, c *lab.Cluster, load *lab.Load, victims ...*lab.Host) {
	t.Helper()
	check(t, c.Boot(t.Context(), victims...))
	eventually(t, time.Minute, func() error { return allReady(t.Context(), c.Hosts, len(c.Hosts)) })
	settled(t, c.Hosts)
	kept(t, load, c.Hosts, nil)
}

// TestPowerLoss cuts the power of one of three machines, or more, under write load: first the
// leader's, then another's.
func TestPowerLoss(t *testing.T) {
	n := nodes(t, 3)
	c := swarm(t, n)
	t.Run("leader", func(t *testing.T) {
		leader, err := c.Leader(t.Context(), c.Hosts[0])
		check(t, err)
		load := startLoad(t, lab.LoadConfig{Hosts: c.Hosts, Name: "leader", Writers: 3 * n, Rate: 200, Faithful: true})
		w, gaps := cut(t, c, load, 15*time.Second, leader)
		for host, gap := range gaps {
			w.within(t, "no write acknowledged through "+host, gap, 3*time.Second)
		}
		kept(t, load, c.Except(leader), nil)
		back(t, c, load, leader)
	})
	t.Run("other", func(t *testing.T) {
		leader, err := c.Leader(t.Context(), c.Hosts[0])
		check(t, err)
		victim := c.Except(leader)[0]
		load := startLoad(t, lab.LoadConfig{Hosts: c.Hosts, Name: "other", Writers: 9, Rate: 200})
		_, gaps := cut(t, c, load, 15*time.Second, victim)
		t.Logf("longest time without a write, by node: %v", gaps)
		noneFailed(t, load)
		kept(t, load, c.Except(victim), nil)
		back(t, c, load, victim)
	})
}

// TestPowerLossOfOneOfTwo: the survivor of two carries on, and the other comes back.
func TestPowerLossOfOneOfTwo(t *testing.T) {
	const replicas = 4
	c := swarm(t, 2)
	apply(t, c.Hosts[0], fmt.Sprintf(stateless, replicas))
	eventually(t, time.Minute, func() error { return running(t.Context(), c.Hosts[0], "web", replicas, c.Hosts) })
	victim, err := c.Leader(t.Context(), c.Hosts[0])
	check(t, err)
	survivors := c.Except(victim)
	load := startLoad(t, lab.LoadConfig{Hosts: c.Hosts, Name: "two", Writers: 6, Rate: 100, Faithful: true})
	w, gaps := cut(t, c, load, 30*time.Second, victim)
	w.within(t, "no write acknowledged through "+survivors[0].Name, gaps[survivors[0].Name], 10*time.Second)
	eventually(t, 30*time.Second, func() error {
		return inEndpoints(t.Context(), survivors[0], "web", replicas, survivors)
	})
	kept(t, load, survivors, nil)
	back(t, c, load, victim)
	onlyOnce(t, c.Hosts[0], "web")
}

// TestPowerLossOfMost: two survivors of five are fewer than half, as are four of ten. They are writable
// soon, and replace the others' pods after the delay of a minority, not before.
func TestPowerLossOfMost(t *testing.T) {
	const delay = time.Minute
	n := nodes(t, 5)
	replicas := 2 * n
	c := swarm(t, n)
	apply(t, c.Hosts[0], fmt.Sprintf(stateless, replicas))
	eventually(t, time.Minute, func() error { return running(t.Context(), c.Hosts[0], "web", replicas, c.Hosts) })
	leader, err := c.Leader(t.Context(), c.Hosts[0])
	check(t, err)
	lost := n * 3 / 5
	victims := append(c.Except(leader)[:lost-1:lost-1], leader)
	survivors := c.Except(victims...)
	before := onThem(t, survivors)
	load := startLoad(t, lab.LoadConfig{Hosts: c.Hosts, Name: "five", Writers: 2 * n, Rate: 100, Faithful: true})
	w, gaps := cut(t, c, load, 20*time.Second, victims...)
	for host, gap := range gaps {
		w.within(t, "no write acknowledged through "+host, gap, 10*time.Second)
	}
	pause(t, delay-time.Since(w.begun))
	if now := onThem(t, survivors); now != before {
		t.Errorf("%d pods run on the survivors a minute after the failure, %d before: the delay of a minority was not kept", now, before)
	}
	w.until(t, fmt.Sprintf("the pods of %d dead nodes are replaced on %d", lost, n-lost), delay+20*time.Second, func() error {
		return inEndpoints(t.Context(), survivors[0], "web", replicas, survivors)
	})
	kept(t, load, survivors, nil)
	back(t, c, load, victims...)
	onlyOnce(t, c.Hosts[0], "web")
}

// onThem counts the containers of web on hosts.
func onThem(t *testing.T, hosts []*lab.Host) int {
	t.Helper()
	containers, err := lab.Containers()
	check(t, err)
	n := 0
	for _, h := range hosts {
		for _, c := range containers {
			if c.Host == h.Name && c.Name == "web" {
				n++
			}
		}
	}
	return n
}
