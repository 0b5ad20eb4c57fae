package predecessor

import (
	"encoding/json"
	"testing"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
)

func kept(t *testing.T, kind string, obj any) []byte {
	t.Helper()
	b, err := json.Marshal(obj)
	if err != nil {
		t.Fatal(err)
	}
	return append([]byte(`{"apiVersion":"v1","kind":"`+kind+`",`), b[1:]...)
}

func TestRead(t *testing.T) {
	yes := true
	pod := func(owner, claim string, phase corev1.PodPhase) *corev1.Pod {
		p := &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: "db-0", UID: "a"}, Spec: corev1.PodSpec{NodeName: "n1"}}
		p.Status.Phase = phase
		if owner != "" {
			p.OwnerReferences = []metav1.OwnerReference{{APIVersion: "apps/v1", Kind: owner, Name: "x", UID: "u", Controller: &yes}}
		}
		if claim != "" {
			p.Spec.Volumes = []corev1.Volume{{Name: "v", VolumeSource: corev1.VolumeSource{
				PersistentVolumeClaim: &corev1.PersistentVolumeClaimVolumeSource{ClaimName: claim},
			}}}
		}
		return p
	}
	inWorld(t, func(w *world) {
		for name, mode := range map[string]corev1.PersistentVolumeAccessMode{"once": corev1.ReadWriteOnce, "many": corev1.ReadWriteMany} {
			c := &corev1.PersistentVolumeClaim{Spec: corev1.PersistentVolumeClaimSpec{AccessModes: []corev1.PersistentVolumeAccessMode{mode}}}
			w.put("/persistentvolumeclaims/default/"+name, kept(t, "PersistentVolumeClaim", c))
		}
		for name, c := range map[string]struct {
			pod  *corev1.Pod
			want Pod
		}{
			"of a StatefulSet":             {pod("StatefulSet", "", corev1.PodRunning), Pod{"a", "n1", true, false}},
			"of a ReplicaSet":              {pod("ReplicaSet", "", corev1.PodPending), Pod{"a", "n1", false, false}},
			"has ended":                    {pod("StatefulSet", "", corev1.PodFailed), Pod{"a", "n1", true, true}},
			"a volume for one":             {pod("", "once", corev1.PodRunning), Pod{"a", "n1", true, false}},
			"a volume for many":            {pod("", "many", corev1.PodRunning), Pod{"a", "n1", false, false}},
			"a claim that is not there":    {pod("", "none", corev1.PodSucceeded), Pod{"a", "n1", true, true}},
			"has ended, of no StatefulSet": {pod("Job", "", corev1.PodSucceeded), Pod{"a", "n1", false, true}},
		} {
			if got, ok := Read(w.store.View(), "/pods/default/db-0", kept(t, "Pod", c.pod)); !ok || got != c.want {
				t.Errorf("%s: %+v, %v, want %+v", name, got, ok, c.want)
			}
		}
		for key, value := range map[string][]byte{
			"/pods/default/a":     kept(t, "ConfigMap", &corev1.ConfigMap{}),
			"/pods/default/b":     []byte("1"),
			"/podtemplates/d/a":   kept(t, "Pod", pod("StatefulSet", "", "")),
			"/configmaps/default": kept(t, "Pod", pod("StatefulSet", "", "")),
		} {
			if got, ok := Read(w.store.View(), key, value); ok {
				t.Errorf("%s: %+v", key, got)
			}
		}
	})
}

// The agent asks by pods, the store has keys.
func TestAgent(t *testing.T) {
	inWorld(t, func(w *world) {
		w.current("/pods/default/db-0", on("b", "n4"))
		w.lose("/pods/default/db-0", on("a", "n4"), on("b", "n4"), 1)
		a, runs := Agent{w.Index}, true
		b := &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: "db-0", UID: "b"}}
		ask := func(uid types.UID) bool { return runs && uid == "a" }
		if err := a.Tell(w.t.Context(), ask); err != nil || a.Wait(b, ask) == "" {
			t.Errorf("%v; what it replaced runs, and it waits: %q", err, a.Wait(b, ask))
		}
		runs = false
		if err := a.Tell(w.t.Context(), ask); err != nil || a.Wait(b, ask) != "" || len(a.Nodes()) > 0 {
			t.Errorf("%v; what it replaced has ended, and it waits: %q; nodes with losses: %v", err, a.Wait(b, ask), a.Nodes())
		}
	})
}
