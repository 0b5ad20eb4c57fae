package ledger

import (
	"testing"
	"time"

	"k8s.io/apimachinery/pkg/types"

	"github.com/podman-swarm/podman-swarm/internal/agent/plan"
	"github.com/podman-swarm/podman-swarm/internal/podman"
	"github.com/podman-swarm/podman-swarm/internal/podspec"
)

const boot = "now"

var t0 = time.Unix(5000, 0)

func listed(id string, state podman.ContainerState, change func(*podman.Container)) podman.Container {
	c := podman.Container{
		ID: id, State: state, Created: t0.Add(-time.Hour),
		Labels: map[string]string{
			podspec.LabelNode: "n", podspec.LabelDataDir: "/d", podspec.LabelUID: "u", podspec.LabelContainer: "c",
			podspec.LabelBootID: boot,
		},
	}
	if state != podman.Created {
		c.Started = t0.Add(-time.Minute)
	}
	if change != nil {
		change(&c)
	}
	return c
}

func book() (*Ledger, *time.Time) {
	now := t0
	return New(boot, t0.Add(-time.Hour), func() time.Time { return now }), &now
}

func only(t *testing.T, l *Ledger) plan.Container {
	t.Helper()
	all := l.Of("u")
	if len(all) != 1 {
		t.Fatalf("%d containers", len(all))
	}
	return all[0]
}

func TestEndsOfContainers(t *testing.T) {
	other := func(c *podman.Container) { c.Labels[podspec.LabelBootID] = "before" }
	for _, tc := range []struct {
		name   string
		c      podman.Container
		state  plan.State
		code   int32
		cutOff bool
	}{
		{"running", listed("x", podman.Running, nil), plan.Running, 0, false},
		{"never started", listed("x", podman.Created, nil), plan.Created, 0, false},
		{"ended", listed("x", podman.Exited, func(c *podman.Container) { c.ExitCode, c.Finished = 3, t0 }), plan.Exited, 3, false},
		{"ended before the boot", listed("x", podman.Exited, func(c *podman.Container) {
			other(c)
			c.ExitCode, c.Finished = 0, t0
		}), plan.Exited, 0, false},
		{"cut off, Podman 5", listed("x", podman.Exited, other), plan.Exited, plan.ExitCodeCutOff, true},
		{"cut off, Podman 4", listed("x", podman.Created, func(c *podman.Container) {
			other(c)
			c.Started = t0
		}), plan.Exited, plan.ExitCodeCutOff, true},
		{"cut off, Podman 4 that missed the boot", listed("x", podman.Running, func(c *podman.Container) {
			other(c)
			c.Started = time.Unix(1, 0)
		}), plan.Exited, plan.ExitCodeCutOff, true},
		{"the marker was lost, the container was not", listed("x", podman.Running, other), plan.Running, 0, false},
	} {
		t.Run(tc.name, func(t *testing.T) {
			l, _ := book()
			l.Replace([]podman.Container{tc.c}, t0)
			e, ok := l.Get("x")
			if !ok || e.State != tc.state || e.ExitCode != tc.code || e.CutOff != tc.cutOff {
				t.Errorf("%+v", e)
			}
			if tc.cutOff && e.Finished.IsZero() {
				t.Error("it has no end")
			}
		})
	}
}

// Knowledge does not go back, whatever order news arrives in.
func TestOrderOfNews(t *testing.T) {
	l, now := book()
	if changed := l.Replace([]podman.Container{listed("x", podman.Running, nil)}, t0); !changed["u"] {
		t.Error("a new container is no news")
	}
	e, _ := l.Get("x")
	if uid := l.Exited(podman.Exit{ID: "x", Code: 7, At: t0}); uid != "u" {
		t.Errorf("the exit is %q's", uid)
	}
	select {
	case <-e.Ended:
	default:
		t.Error("who waits for the end is not told")
	}
	if changed := l.Replace([]podman.Container{listed("x", podman.Running, nil)}, t0); len(changed) > 0 {
		t.Error("an old list is news")
	}
	if c := only(t, l); c.State != plan.Exited || c.ExitCode != 7 {
		t.Errorf("%+v", c)
	}
	if uid := l.Exited(podman.Exit{ID: "x", Code: 0, At: t0}); uid != "" {
		t.Error("it ends twice")
	}
	// A list begun before a container was made does not make it vanish; a later one does.
	begun := *now
	*now = now.Add(time.Second)
	l.Add(Entry{UID: "u", Container: plan.Container{ID: "y", Name: "c", Attempt: 1, State: plan.Created}})
	l.Replace([]podman.Container{listed("x", podman.Exited, nil)}, begun)
	if len(l.Of("u")) != 2 {
		t.Error("a fresh container is forgotten")
	}
	l.Replace(nil, now.Add(time.Second))
	if len(l.UIDs()) != 0 {
		t.Error("vanished containers are remembered")
	}
}

// An end may be heard of before the beginning: Create returns later than a quick container ends.
func TestEarlyExit(t *testing.T) {
	l, _ := book()
	if uid := l.Exited(podman.Exit{ID: "x", Code: 2, At: t0}); uid != "" {
		t.Errorf("a stranger is %q's", uid)
	}
	l.Add(Entry{UID: types.UID("u"), Container: plan.Container{ID: "x", Name: "c", State: plan.Created}})
	if c := only(t, l); c.State != plan.Exited || c.ExitCode != 2 {
		t.Errorf("%+v", c)
	}
	if l.Running() != 0 {
		t.Error("it counts as running")
	}
}

func TestStrangersAreIgnored(t *testing.T) {
	l, _ := book()
	l.Replace([]podman.Container{{ID: "x", State: podman.Running}, listed("infra", podman.Running, func(c *podman.Container) {
		c.Infra = true
	})}, t0)
	if len(l.UIDs()) != 0 {
		t.Error(l.UIDs())
	}
}
