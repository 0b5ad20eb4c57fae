package agent

import (
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/podman-swarm/podman-swarm/internal/podman"
	"github.com/podman-swarm/podman-swarm/internal/podman/podmantest"
)

func ofStatefulSet(p *corev1.Pod) {
	yes := true
	p.OwnerReferences = []metav1.OwnerReference{{APIVersion: "apps/v1", Kind: "StatefulSet", Name: "db", UID: "u", Controller: &yes}}
}

func withClaim(name string) func(*corev1.Pod) {
	return func(p *corev1.Pod) {
		p.Spec.Volumes = []corev1.Volume{{Name: "v", VolumeSource: corev1.VolumeSource{
			PersistentVolumeClaim: &corev1.PersistentVolumeClaimVolumeSource{ClaimName: name},
		}}}
	}
}

func (w *world) claim(name string, mode corev1.PersistentVolumeAccessMode) {
	w.t.Helper()
	c := &corev1.PersistentVolumeClaim{
		ObjectMeta: metav1.ObjectMeta{Name: name},
		Spec:       corev1.PersistentVolumeClaimSpec{AccessModes: []corev1.PersistentVolumeAccessMode{mode}},
	}
	if _, err := w.api.CoreV1().PersistentVolumeClaims("default").Create(w.t.Context(), c, metav1.CreateOptions{}); err != nil {
		w.t.Fatal(err)
	}
}

// A node that is cut off stops what must not run twice, quickly, and nothing else. Back among the
// others it starts what the API still has.
func TestCutOff(t *testing.T) {
	inWorld(t, func(w *world) {
		w.podman.Behave = func(podman.ContainerSpec) podmantest.Behavior { return podmantest.Behavior{IgnoreTerm: true} }
		w.claim("once", corev1.ReadWriteOnce)
		w.claim("many", corev1.ReadWriteMany)
		w.create(newPod("web", nil))
		w.create(newPod("db-0", func(p *corev1.Pod) {
			ofStatefulSet(p)
			hour := int64(3600)
			p.Spec.TerminationGracePeriodSeconds = &hour
		}))
		w.create(newPod("db-1", ofStatefulSet))
		w.create(newPod("one", withClaim("once")))
		w.create(newPod("all", withClaim("many")))
		w.wait(time.Second)
		for _, name := range []string{"web", "db-0", "db-1", "one", "all"} {
			w.want(name, "Running c=running+")
		}

		w.fence.set(true, true)
		w.wait(6 * time.Second) // a grace of 5 s, whatever the pod says
		w.want("web", "Running c=running+")
		w.want("all", "Running c=running+")
		for _, name := range []string{"db-0", "db-1", "one"} {
			w.want(name, "Running c=NodeCutOff<Error(137)")
			if w.running(name, "c") != "" {
				w.t.Errorf("%s still runs", name)
			}
		}
		w.create(newPod("db-2", ofStatefulSet))
		w.wait(time.Hour)
		w.want("db-2", "Pending c=NodeCutOff")
		w.want("db-0", "Running c=NodeCutOff<Error(137)")

		w.deletePod("db-1", 0) // the others have replaced it
		w.wait(10 * time.Second)
		w.want("db-1", "gone")
		w.fence.set(false, false)
		w.wait(time.Second)
		w.want("db-0", "Running c=running<Error(137)x1+")
		w.want("db-2", "Running c=running+")
		w.want("one", "Running c=running<Error(137)x1+")
	})
}

// A node that has not met the others yet starts nothing that must not run twice, but stops nothing.
func TestHold(t *testing.T) {
	inWorld(t, func(w *world) {
		w.create(newPod("db-0", ofStatefulSet))
		w.want("db-0", "Running c=running+")
		w.fence.set(false, true)
		w.create(newPod("db-1", ofStatefulSet))
		w.create(newPod("web", nil))
		w.wait(time.Minute)
		w.want("db-0", "Running c=running+")
		w.want("db-1", "Pending c=NodeCutOff")
		w.want("web", "Running c=running+")
		w.fence.set(false, false)
		w.wait(time.Second)
		w.want("db-1", "Running c=running+")
	})
}

// A pod that is being stopped when the node is cut off must have ended in time too, whatever grace it was
// given before: others replace it as they replace those that ran.
func TestCutOffWhileStopping(t *testing.T) {
	inWorld(t, func(w *world) {
		w.podman.Behave = func(podman.ContainerSpec) podmantest.Behavior { return podmantest.Behavior{IgnoreTerm: true} }
		w.create(newPod("web", nil))
		w.create(newPod("db-0", ofStatefulSet))
		w.create(newPod("db-1", ofStatefulSet))
		w.wait(time.Second)
		w.deletePod("web", 3600)
		w.deletePod("db-0", 3600)
		if err := w.api.CoreV1().Pods("default").Delete(w.t.Context(), "db-1", metav1.DeleteOptions{}); err != nil {
			w.t.Fatal(err) // as when a merge replaced it: it is given its whole grace
		}
		w.wait(10 * time.Second)
		for _, name := range []string{"web", "db-0", "db-1"} {
			if w.running(name, "c") == "" {
				w.t.Fatalf("%s has ended before its grace is over", name)
			}
		}
		w.fence.set(true, true)
		w.wait(5*time.Second + time.Millisecond)
		if w.running("db-0", "c") != "" || w.running("db-1", "c") != "" {
			w.t.Error("what must not run twice still runs")
		}
		if w.running("web", "c") == "" {
			w.t.Error("what may run twice was hurried")
		}
	})
}

// A pod that a merge put in place of another is not started before that has ended, and says what it waits
// for. What runs already runs on.
func TestPredecessor(t *testing.T) {
	inWorld(t, func(w *world) {
		const why = "waits until pod UID a, which it replaced in a merge, has ended on n1; if n1 is off: psctl node fence n1"
		w.create(newPod("db-0", ofStatefulSet))
		w.create(newPod("db-2", func(p *corev1.Pod) {
			ofStatefulSet(p)
			p.Spec.Containers = append(p.Spec.Containers, p.Spec.Containers[0])
			p.Spec.Containers[1].Name = "d"
		}))
		w.want("db-0", "Running c=running+")
		w.elders.change(func() {
			for _, name := range []string{"web", "db-0", "db-1", "db-2"} {
				w.elders.wait[types.UID("uid-"+name)] = why
			}
		})
		w.create(newPod("db-1", ofStatefulSet))
		w.create(newPod("web", nil))
		w.wait(time.Minute)
		w.want("web", "Running c=running+")
		w.want("db-0", "Running c=running+")
		w.want("db-1", "Pending c=PredecessorNotEnded")
		if got := w.get("db-1").Status.ContainerStatuses[0].State.Waiting.Message; got != why {
			w.t.Errorf("it says %q", got)
		}
		w.elders.change(func() {}) // of something else
		w.podman.End(w.running("db-2", "d"), 1)
		w.wait(time.Minute)
		w.want("db-2", "Running c=running+ d=running<Error(1)x1+")
		w.wait(time.Second)
		if got := strings.Join(w.events("db-1"), " "); got != "PredecessorNotEnded" {
			w.t.Errorf("events of the pod that waits: %q", got)
		}

		w.podman.End(w.running("db-0", "c"), 1)
		w.wait(time.Minute)
		w.want("db-0", "Running c=PredecessorNotEnded<Error(1)")

		w.elders.change(func() { clear(w.elders.wait) })
		w.wait(0)
		w.want("db-1", "Running c=running+")
		w.want("db-0", "Running c=running<Error(1)x1+")
	})
}

// A merge may come while a pod's images are pulled.
func TestPredecessorFoundLate(t *testing.T) {
	inWorld(t, func(w *world) {
		w.elders.change(func() { w.elders.wait["uid-db-0"], w.elders.late["uid-db-0"] = "waits", 1 })
		w.create(newPod("db-0", ofStatefulSet))
		w.wait(time.Minute)
		w.want("db-0", "Pending c=PredecessorNotEnded")
		w.elders.change(func() { clear(w.elders.wait) })
		w.wait(0)
		w.want("db-0", "Running c=running+")
	})
}

// What was lost is said to have ended when it has, not before, and by the next agent if need be.
func TestTellOfTheEnd(t *testing.T) {
	inWorld(t, func(w *world) {
		w.podman.Behave = func(podman.ContainerSpec) podmantest.Behavior { return podmantest.Behavior{IgnoreTerm: true} }
		remove := func(name string) {
			w.t.Helper()
			if err := w.api.CoreV1().Pods("default").Delete(w.t.Context(), name, metav1.DeleteOptions{}); err != nil {
				w.t.Fatal(err)
			}
		}
		w.create(newPod("db-0", ofStatefulSet))
		w.create(newPod("db-1", ofStatefulSet))
		w.wait(time.Second)
		w.elders.change(func() {
			w.elders.fail = 1
			for _, uid := range []types.UID{"uid-db-0", "uid-db-1", "uid-never-here"} {
				w.elders.lost[uid] = true
			}
		})
		w.wait(time.Millisecond)
		if got := w.elders.said(); got != "" {
			w.t.Fatalf("said to have ended: %s, although it cannot be said yet", got)
		}
		w.wait(time.Second)
		if got := w.elders.said(); got != "uid-never-here" {
			w.t.Errorf("said to have ended: %q", got)
		}
		remove("db-0")
		w.wait(29 * time.Second) // of a grace of 30 s
		if got := w.elders.said(); got != "uid-never-here" {
			w.t.Errorf("said to have ended while they run: %q", got)
		}
		w.wait(2 * time.Second)
		if got := w.elders.said(); got != "uid-never-here uid-db-0" {
			w.t.Errorf("said to have ended: %q", got)
		}
		w.stop()
		remove("db-1")
		w.start()
		w.wait(8 * time.Second) // of an orphan's 10 s
		if got := w.elders.said(); got != "uid-never-here uid-db-0" {
			w.t.Errorf("said to have ended after a restart of the agent: %q", got)
		}
		w.wait(3 * time.Second)
		if got := w.elders.said(); got != "uid-never-here uid-db-0 uid-db-1" {
			w.t.Errorf("said to have ended: %q", got)
		}
	})
}
