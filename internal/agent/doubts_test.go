package agent

import (
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"

	"github.com/podman-swarm/podman-swarm/internal/podman"
	"github.com/podman-swarm/podman-swarm/internal/podman/podmantest"
)

func never(p *corev1.Pod) { p.Spec.RestartPolicy = corev1.RestartPolicyNever }

// A container whose end is told badly, or not at all, is over in the API within seconds all the same,
// with its own exit code.
func TestEndsThatAreHardToHear(t *testing.T) {
	unread := func(x podman.Exit) (podman.Exit, bool) { return podman.Exit{ID: x.ID, At: x.At, Unread: true}, true }
	silent := func(x podman.Exit) (podman.Exit, bool) { return x, false }
	for name, tt := range map[string]struct {
		hint        func(podman.Exit) (podman.Exit, bool)
		after       time.Duration // from the start to the end
		launch, lag time.Duration
		unheard     bool // the watch says that it missed something
		within      time.Duration
	}{
		"told":                           {within: 200 * time.Millisecond},
		"told before the start returned": {launch: time.Second, within: 1200 * time.Millisecond},
		"the record is gone":             {hint: unread, within: 200 * time.Millisecond},
		"gone before the start returned": {hint: unread, launch: time.Second, within: 1200 * time.Millisecond},
		"gone after an hour":             {hint: unread, after: time.Hour, within: time.Hour + time.Second},
		"and reads as running":           {hint: unread, lag: 1500 * time.Millisecond, within: 3 * time.Second},
		"for long":                       {hint: unread, lag: 9 * time.Second, within: 11 * time.Second},
		"and while it starts":            {hint: unread, launch: time.Second, lag: 1500 * time.Millisecond, within: 3 * time.Second},
		"nothing is told":                {hint: silent, within: 3 * time.Second},
		"nothing, at the last moment":    {hint: silent, after: 1900 * time.Millisecond, within: 3 * time.Second},
		"the watch was not there":        {hint: silent, after: time.Hour, unheard: true, within: time.Hour + time.Second},
	} {
		t.Run(name, func(t *testing.T) {
			inWorld(t, func(w *world) {
				w.podman.Hint, w.podman.Lag = tt.hint, tt.lag
				w.podman.Behave = func(podman.ContainerSpec) podmantest.Behavior {
					return podmantest.Behavior{Exits: true, After: tt.after, Code: 3, Launch: tt.launch}
				}
				w.create(newPod("p", never))
				w.wait(tt.after + time.Millisecond)
				if tt.unheard {
					w.podman.Tell(podman.Exit{})
				}
				w.wait(tt.within - tt.after)
				w.want("p", "Failed c=Error(3)")
			})
		})
	}
}

// Containers that run on cost one look each, and one whose end was told wrongly a bounded number.
func TestLooksAreFew(t *testing.T) {
	inWorld(t, func(w *world) {
		for _, name := range []string{"a", "b", "c"} {
			w.create(newPod(name, nil))
		}
		w.wait(10 * time.Second)
		looks := w.podman.Asked("Inspect")
		if looks != 3 {
			w.t.Errorf("%d looks at 3 containers that were started", looks)
		}
		w.podman.Tell(podman.Exit{ID: w.running("a", "c"), Unread: true})
		w.wait(10 * time.Minute)
		if n := w.podman.Asked("Inspect") - looks; n != maxLooks {
			w.t.Errorf("%d looks at one that was said to have ended, want %d", n, maxLooks)
		}
		w.want("a", "Running c=running+")
	})
}

// While Podman is away nobody knows; then the truth is told.
func TestDoubtWhilePodmanIsAway(t *testing.T) {
	inWorld(t, func(w *world) {
		w.podman.Hint = func(x podman.Exit) (podman.Exit, bool) { return podman.Exit{ID: x.ID, Unread: true}, true }
		w.create(newPod("p", never))
		w.wait(10 * time.Second)
		id := w.running("p", "c")
		w.podman.SetDown(true)
		w.podman.End(id, 7)
		w.wait(time.Minute)
		w.want("p", "Running c=running+")
		w.podman.SetDown(false)
		w.wait(15 * time.Second)
		w.want("p", "Failed c=Error(7)")
	})
}
