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
