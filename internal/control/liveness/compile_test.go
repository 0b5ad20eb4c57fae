package liveness

import (
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

func TestConditions(t *testing.T) {
	said, since, now := metav1.NewTime(time.Unix(500, 0)), time.Unix(1000, 0), time.Unix(1003, 0)
	own := corev1.NodeCondition{Type: "PodResourceLimits", Status: corev1.ConditionTrue, LastTransitionTime: said}
	have := []corev1.NodeCondition{
		own,
		{Type: corev1.NodeReady, Status: corev1.ConditionFalse, Reason: "PodmanNotReachable", LastHeartbeatTime: said, LastTransitionTime: said},
		{Type: corev1.NodeDiskPressure, Status: corev1.ConditionTrue, LastHeartbeatTime: said, LastTransitionTime: said},
		{Type: corev1.NodeMemoryPressure, Status: corev1.ConditionFalse, LastHeartbeatTime: said, LastTransitionTime: said},
	}
	got, changed := Conditions(have, since, now)
	at := metav1.NewTime(now).Rfc3339Copy()
	const message = "Node is unreachable since 1970-01-01T00:16:40Z: it is off or cut off."
	lost := func(kind corev1.NodeConditionType, reason string, heard metav1.Time) corev1.NodeCondition {
		return corev1.NodeCondition{
			Type: kind, Status: corev1.ConditionUnknown, Reason: reason, Message: message, LastHeartbeatTime: heard, LastTransitionTime: at,
		}
	}
	want := []corev1.NodeCondition{
		own, lost(corev1.NodeReady, "NodeStatusUnknown", said), lost(corev1.NodeDiskPressure, "NodeStatusUnknown", said),
		lost(corev1.NodeMemoryPressure, "NodeStatusUnknown", said), lost(corev1.NodePIDPressure, "NodeStatusNeverUpdated", at),
	}
	if diff := cmp.Diff(want, got); diff != "" || !changed {
		t.Errorf("changed: %v, conditions (-want +got):\n%s", changed, diff)
	}
	if have[1].Status != corev1.ConditionFalse {
		t.Error("the argument was changed")
	}
	// Another leader noticed at another time: nothing to write.
	if again, changed := Conditions(got, since.Add(time.Second), now.Add(time.Hour)); changed {
		t.Errorf("a second look changes %v", cmp.Diff(got, again))
	}
}

func TestNotReady(t *testing.T) {
	now := time.Unix(1000, 0)
	pod := func(conditions ...corev1.PodCondition) *corev1.Pod {
		return &corev1.Pod{Status: corev1.PodStatus{Conditions: conditions}}
	}
	ready := corev1.PodCondition{Type: corev1.PodReady, Status: corev1.ConditionTrue, ObservedGeneration: 3}
	containers := corev1.PodCondition{Type: corev1.ContainersReady, Status: corev1.ConditionTrue}
	want := &corev1.PodCondition{
		Type: corev1.PodReady, Status: corev1.ConditionFalse, ObservedGeneration: 3, LastTransitionTime: metav1.NewTime(now).Rfc3339Copy(),
	}
	if diff := cmp.Diff(want, NotReady(pod(containers, ready), now)); diff != "" {
		t.Errorf("a ready pod (-want +got):\n%s", diff)
	}
	if got := NotReady(pod(containers, *want), now); got != nil {
		t.Errorf("a pod that is not: %v", got)
	}
	if got := NotReady(pod(), now); got != nil {
		t.Errorf("a pod that never was: %v", got)
	}
}

func TestSingle(t *testing.T) {
	yes := true
	owned := func(kind string, controller *bool) *corev1.Pod {
		return &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Name: "p", OwnerReferences: []metav1.OwnerReference{{Kind: kind, Controller: controller}}}}
	}
	with := func(source corev1.VolumeSource) *corev1.Pod {
		return &corev1.Pod{
			ObjectMeta: metav1.ObjectMeta{Name: "p"},
			Spec:       corev1.PodSpec{Volumes: []corev1.Volume{{Name: "tmp"}, {Name: "v", VolumeSource: source}}},
		}
	}
	claimed := func(name string) *corev1.Pod {
		return with(corev1.VolumeSource{PersistentVolumeClaim: &corev1.PersistentVolumeClaimVolumeSource{ClaimName: name}})
	}
	claims := map[string][]corev1.PersistentVolumeAccessMode{
		"once": {corev1.ReadWriteOnce}, "pod": {corev1.ReadWriteOncePod}, "many": {corev1.ReadWriteMany}, "read": {corev1.ReadOnlyMany},
		"either": {corev1.ReadWriteOnce, corev1.ReadWriteMany}, "p-v": {corev1.ReadWriteOnce},
	}
	claim := func(name string) *corev1.PersistentVolumeClaim {
		modes, ok := claims[name]
		if !ok {
			return nil
		}
		return &corev1.PersistentVolumeClaim{Spec: corev1.PersistentVolumeClaimSpec{AccessModes: modes}}
	}
	for name, tt := range map[string]struct {
		pod  *corev1.Pod
		want bool
	}{
		"alone":                       {&corev1.Pod{}, false},
		"of a StatefulSet":            {owned("StatefulSet", &yes), true},
		"mentions a StatefulSet":      {owned("StatefulSet", nil), false},
		"of a ReplicaSet":             {owned("ReplicaSet", &yes), false},
		"ReadWriteOnce":               {claimed("once"), true},
		"ReadWriteOncePod":            {claimed("pod"), true},
		"ReadWriteMany":               {claimed("many"), false},
		"ReadOnlyMany":                {claimed("read"), false},
		"ReadWriteOnce or Many":       {claimed("either"), false},
		"a claim that does not exist": {claimed("none"), false},
		"a volume of its own":         {with(corev1.VolumeSource{Ephemeral: &corev1.EphemeralVolumeSource{}}), true},
	} {
		t.Run(name, func(t *testing.T) {
			if got := Single(tt.pod, claim); got != tt.want {
				t.Errorf("got %v", got)
			}
		})
	}
}
