//go:build e2e

package cluster

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/podman-swarm/podman-swarm/test/lab"
)

// TestSystemd has init and join make units, as they do where systemd is in charge: the agent starts at
// once and at every boot, comes back when it is killed, and containers do not notice either.
func TestSystemd(t *testing.T) {
	c := machinesOf(t, 2, systemdFlags()...)
	first, second := c.Hosts[0], c.Hosts[1]
	eventually(t, 20*time.Second, func() error { return managed(t.Context(), c.Hosts) })
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	defer cancel()
	t.Cleanup(func() {
		if t.Failed() {
			for _, h := range c.Hosts {
				log, _ := os.ReadFile(h.Outside("/run/agent.log"))
				t.Logf("log of the agent on %s:\n%s", h.Name, log)
			}
		}
	})

	w := start(t)
	out, err := first.Swarm(ctx, "init", "--advertise-addr", first.Addr())
	check(t, err)
	paste, err := lab.JoinCommand(out)
	check(t, err)
	_, err = second.Swarm(ctx, append(slices.Clone(paste), "--advertise-addr", second.Addr())...)
	check(t, err)
	w.until(t, "two machines became two ready nodes", 10*time.Second, func() error { return allReady(t.Context(), c.Hosts, 2) })
	apply(t, first, fmt.Sprintf(stateless, 4)+"---"+fmt.Sprintf(stateful, 2))
	for app, n := range map[string]int{"web": 4, "db": 2} {
		eventually(t, time.Minute, func() error { return running(t.Context(), second, app, n, c.Hosts) })
	}
	before := monitors(t)
	for _, args := range [][]string{{"restart"}, {"kill", "-s", "KILL", "--kill-whom=main"}} {
		for _, h := range c.Hosts {
			pid := agentOf(t, h)
			systemctl(t, h, append(args, unitOf(t, h))...)
			eventually(t, 30*time.Second, func() error {
				if agentOf(t, h) == pid {
					return fmt.Errorf("the agent on %s is the same as before", h.Name)
				}
				return allReady(t.Context(), c.Hosts, 2)
			})
		}
	}
	if now := monitors(t); !slices.Equal(now, before) {
		t.Errorf("containers after each agent was restarted and killed\n%q, before\n%q", now, before)
	}

	check(t, c.Crash(t.Context(), second))
	_, err = second.Lab(t.Context(), "boot", second.Name) // nobody starts the agent
	check(t, err)
	eventually(t, time.Minute, func() error {
		if !second.Ready(t.Context()) {
			return fmt.Errorf("%s is not ready after it was powered on", second.Name)
		}
		return allReady(t.Context(), c.Hosts, 2)
	})
	eventually(t, time.Minute, func() error { return running(t.Context(), second, "db", 2, c.Hosts) })
	onlyOnce(t, first, "db")

	_, err = second.Swarm(ctx, "leave", "--yes")
	check(t, err)
	if unit := systemctl(t, second, "list-unit-files", "podman-swarm*"); strings.Contains(unit, "podman-swarm") {
		t.Errorf("%s has left, and its unit is still there:\n%s", second.Name, unit)
	}
	eventually(t, time.Minute, func() error { return allReady(t.Context(), c.Hosts[:1], 1) })
}

// systemdFlags are the usual ones, on the machine's own /usr: that of the second Podman has no systemd.
func systemdFlags() []string {
	flags := []string{"--systemd", "--no-service"}
	if slices.Contains(strings.Fields(os.Getenv("SWARM_CLUSTER_FLAGS")), "--rootless") {
		flags = append(flags, "--rootless")
	}
	return flags
}

// managed tells whether systemd, the user's where that is in charge, has started on all hosts.
func managed(ctx context.Context, hosts []*lab.Host) error {
	for _, h := range hosts {
		if out, errOut, err := h.Run(ctx, "", ctl(h, "is-active", "default.target")...); err != nil {
			return fmt.Errorf("%s: %w: %s%s", h.Name, err, out, errOut)
		}
	}
	return nil
}

func ctl(h *lab.Host, args ...string) []string {
	if h.Rootless {
		return append([]string{"systemctl", "--user", "--no-pager"}, args...)
	}
	return append([]string{"systemctl", "--no-pager"}, args...)
}

func systemctl(t *testing.T, h *lab.Host, args ...string) string {
	t.Helper()
	out, errOut, err := h.Run(t.Context(), "", ctl(h, args...)...)
	if err != nil && errOut != "" {
		t.Fatalf("systemctl %v on %s: %v: %s%s", args, h.Name, err, out, errOut)
	}
	return out
}

// unitOf is the unit that was made on a host.
func unitOf(t *testing.T, h *lab.Host) string {
	t.Helper()
	dir := "/etc/systemd/system"
	if h.Rootless {
		dir = "/home/podlab/.config/systemd/user"
	}
	found, err := filepath.Glob(filepath.Join(h.Outside(dir), "podman-swarm*.service"))
	if err != nil || len(found) != 1 {
		t.Fatalf("units on %s: %q, %v; want one", h.Name, found, err)
	}
	return filepath.Base(found[0])
}

// agentOf is the agent's process as systemd knows it; "0": none.
func agentOf(t *testing.T, h *lab.Host) string {
	t.Helper()
	return strings.TrimSpace(systemctl(t, h, "show", "-p", "MainPID", "--value", unitOf(t, h)))
}
