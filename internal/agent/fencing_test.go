package agent

import (
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

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
