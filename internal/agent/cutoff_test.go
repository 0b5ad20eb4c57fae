package agent

import (
	"context"
	"errors"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"

	"github.com/podman-swarm/podman-swarm/internal/podman"
	"github.com/podman-swarm/podman-swarm/internal/podman/podmantest"
)

// withSecond gives a pod a container whose image must be pulled.
func withSecond(p *corev1.Pod) {
	p.Spec.Containers = append(p.Spec.Containers, corev1.Container{Name: "d", Image: "far:1", ImagePullPolicy: corev1.PullAlways})
}

// What must not run twice ends in time behind the fence, whatever its worker waits for meanwhile.
func TestCutOffStopsABusyPod(t *testing.T) {
	for name, hang := range map[string]func(w *world){
		"an image is pulled": func(w *world) {
			w.stuck.pulls.Store(true)
			w.change("db-0", withSecond)
		},
		"its status cannot be written": func(w *world) {
			w.stuck.statuses.Store(true)
			w.change("db-0", withSecond) // it is told before the pull
		},
		"its volumes cannot be refreshed": func(w *world) {
			w.stuck.volumes.Store(true)
			w.change("db-0", func(p *corev1.Pod) { p.Labels = map[string]string{"a": "b"} })
		},
	} {
		t.Run(name, func(t *testing.T) {
			inWorld(t, func(w *world) {
				w.podman.Behave = func(podman.ContainerSpec) podmantest.Behavior { return podmantest.Behavior{IgnoreTerm: true} }
				w.create(newPod("db-0", ofStatefulSet))
				w.wait(time.Second)
				w.want("db-0", "Running c=running+")
				hang(w)
				w.wait(time.Second)
				w.fence.set(true, true)
				w.wait(5*time.Second + time.Millisecond) // the grace
				if w.running("db-0", "c") != "" {
					w.t.Error("c still runs when others replace it")
				}
				w.stuck.pulls.Store(false)
				w.stuck.statuses.Store(false)
				w.stuck.volumes.Store(false)
				w.podman.AddRemote("far:1", podman.Image{Cmd: []string{"/far"}})
				w.fence.set(false, false)
				w.wait(time.Minute)
				if w.running("db-0", "c") == "" {
					w.t.Errorf("back among the others it is %s", w.brief("db-0"))
				}
			})
		})
	}
}

// A pod that may run twice goes on as if nothing had happened: a hook that is cut short is not run again.
func TestCutOffSparesHooksOfOthers(t *testing.T) {
	inWorld(t, func(w *world) {
		hooks, cut := 0, 0
		w.podman.OnExec = func(ctx context.Context, _ string, _ podman.ExecConfig) (int, error) {
			hooks++
			select {
			case <-ctx.Done():
				cut++
				return -1, ctx.Err()
			case <-time.After(20 * time.Second):
				return 0, nil
			}
		}
		w.create(newPod("web", func(p *corev1.Pod) {
			p.Spec.Containers[0].Lifecycle = &corev1.Lifecycle{PostStart: &corev1.LifecycleHandler{
				Exec: &corev1.ExecAction{Command: []string{"/hook"}},
			}}
		}))
		w.wait(10 * time.Second)
		w.fence.set(true, true)
		w.wait(time.Minute)
		w.want("web", "Running c=running+")
		if hooks != 1 || cut != 0 {
			w.t.Errorf("%d hooks were begun, %d cut short", hooks, cut)
		}
	})
}

// An agent that is started on a node that is cut off stops what the one before it left, even if it cannot take
// that over.
func TestCutOffStopsWhatCannotBeAdopted(t *testing.T) {
	for name, hinder := range map[string]func(w *world){
		"no network":   func(w *world) { w.net.fail = errors.New("network helper lost") },
		"volumes hang": func(w *world) { w.stuck.volumes.Store(true) },
	} {
		t.Run(name, func(t *testing.T) {
			inWorld(t, func(w *world) {
				w.podman.Behave = func(podman.ContainerSpec) podmantest.Behavior { return podmantest.Behavior{IgnoreTerm: true} }
				w.create(newPod("db-0", ofStatefulSet))
				w.wait(time.Second)
				w.want("db-0", "Running c=running+")
				w.stop()
				hinder(w)
				w.fence.set(true, true)
				w.start()
				w.wait(5 * time.Second) // the grace
				if w.running("db-0", "c") != "" {
					w.t.Error("c still runs when others replace it")
				}
				w.wait(leaderless)
				w.want("db-0", "Running c=NodeCutOff<Error(137)")
				w.net.mu.Lock()
				w.net.fail = nil
				w.net.mu.Unlock()
				w.stuck.volumes.Store(false)
				w.fence.set(false, false)
				w.wait(time.Minute)
				w.want("db-0", "Running c=running<Error(137)x1+")
			})
		})
	}
}
