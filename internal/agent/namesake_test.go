package agent

import (
	"slices"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/podman-swarm/podman-swarm/internal/podman"
	"github.com/podman-swarm/podman-swarm/internal/podman/podmantest"
	"github.com/podman-swarm/podman-swarm/internal/podspec"
)

// replace has another pod take this one's name, and the agent hear of both at once, as in a list after a merge.
func (w *world) replace(name string, uid types.UID) {
	w.t.Helper()
	w.change(name, func(p *corev1.Pod) {
		p.UID = uid
		p.Status = corev1.PodStatus{}
	})
}

// alive are the UIDs of the pods of that name of which something runs.
func (w *world) alive(name string) string {
	w.t.Helper()
	list, err := w.podman.Containers(w.t.Context(), map[string]string{podspec.LabelPod: name})
	if err != nil {
		w.t.Fatal(err)
	}
	var uids []string
	for _, c := range list {
		if c.State == podman.Running {
			uids = append(uids, c.Labels[podspec.LabelUID])
		}
	}
	slices.Sort(uids)
	return strings.Join(uids, " ")
}

func (w *world) wantAlive(name, want string) {
	w.t.Helper()
	if got := w.alive(name); got != want {
		w.t.Errorf("of the pods named %s run %q, want %q", name, got, want)
	}
}

func ignoreTerm(podman.ContainerSpec) podmantest.Behavior {
	return podmantest.Behavior{IgnoreTerm: true}
}

// A pod whose name another one took ends, with its grace, and only then the other one starts: at once.
func TestReplacedByAnotherOfItsName(t *testing.T) {
	for name, kind := range map[string]func(*corev1.Pod){"any pod": nil, "of a StatefulSet": ofStatefulSet} {
		t.Run(name, func(t *testing.T) {
			inWorld(t, func(w *world) {
				w.podman.Behave = ignoreTerm
				w.create(newPod("db-0", kind))
				w.wait(time.Second)
				w.elders.change(func() { w.elders.lost["uid-db-0"] = true })
				w.replace("db-0", "uid-2")
				w.wait(29 * time.Second)
				w.wantAlive("db-0", "uid-db-0")
				w.want("db-0", "Pending c=PredecessorNotEnded")
				w.replace("db-0", "uid-3") // and one more
				w.wait(2 * time.Second)
				w.wantAlive("db-0", "uid-3")
				w.want("db-0", "Running c=running+")
				if got := w.elders.said(); got != "uid-db-0" {
					w.t.Errorf("said to have ended: %q", got)
				}
				w.deletePod("db-0", 0)
				w.wait(time.Minute)
				w.nothingLeft()
			})
		})
	}
}

// The agent may be stopped while a pod waits for one of its name; the next one knows of both.
func TestRestartWhileANamesakeEnds(t *testing.T) {
	inWorld(t, func(w *world) {
		w.podman.Behave = ignoreTerm
		w.create(newPod("web", nil))
		w.wait(time.Second)
		w.replace("web", "uid-2")
		w.wait(time.Second)
		begun := time.Now()
		w.stop()
		if took := time.Since(begun); took > time.Second {
			w.t.Errorf("the agent took %v to stop", took)
		}
		w.wantAlive("web", "uid-web")
		w.start()
		w.wait(8 * time.Second) // of an orphan's 10 s
		w.wantAlive("web", "uid-web")
		w.wait(2 * time.Second)
		w.wantAlive("web", "uid-2")
		w.want("web", "Running c=running+")
	})
}

// A pod that waits for one of its name may be deleted, and need not wait for that either.
func TestDeletedWhileANamesakeEnds(t *testing.T) {
	inWorld(t, func(w *world) {
		w.podman.Behave = ignoreTerm
		w.create(newPod("web", nil))
		w.wait(time.Second)
		w.replace("web", "uid-2")
		w.wait(time.Second)
		w.deletePod("web", 30)
		w.wait(time.Second)
		w.want("web", "gone")
		w.wantAlive("web", "uid-web")
		w.wait(time.Minute)
		w.nothingLeft()
	})
}

// A StatefulSet's pod that is deleted and made again has nobody to wait for: the API forgot the former one only
// when nothing was left of it.
func TestMadeAgainWaitsForNobody(t *testing.T) {
	inWorld(t, func(w *world) {
		w.create(newPod("db-0", ofStatefulSet))
		w.wait(time.Second)
		w.deletePod("db-0", 30)
		again := newPod("db-0", ofStatefulSet)
		again.UID = "uid-2"
		w.create(again)
		w.wait(time.Second)
		w.want("db-0", "Running c=running+")
		w.wantAlive("db-0", "uid-2")
		if slices.Contains(w.events("db-0"), "PredecessorNotEnded") {
			w.t.Errorf("events: %v", w.events("db-0"))
		}
	})
}
