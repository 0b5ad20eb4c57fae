package liveness

import (
	"fmt"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

const (
	// reasonUnknown and reasonNever are upstream's.
	reasonUnknown = "NodeStatusUnknown"
	reasonNever   = "NodeStatusNeverUpdated"
)

// unknowable are the conditions that only the node itself can vouch for, upstream's list. What its
// Podman can do stays as it was told: a machine does not forget that by being silent.
func unknowable() []corev1.NodeConditionType {
	return []corev1.NodeConditionType{
		corev1.NodeReady, corev1.NodeMemoryPressure, corev1.NodeDiskPressure, corev1.NodePIDPressure,
	}
}

// Conditions returns the conditions of a node that has been dead since, and whether they are
// other than those it has.
func Conditions(have []corev1.NodeCondition, since, now time.Time) (want []corev1.NodeCondition, changed bool) {
	at := metav1.NewTime(now).Rfc3339Copy()
	message := fmt.Sprintf("Node is unreachable since %s: it is off or cut off.", since.UTC().Format(time.RFC3339))
	want = append(want, have...)
	for _, kind := range unknowable() {
		c := find(want, kind)
		if c == nil {
			want = append(want, corev1.NodeCondition{
				Type: kind, Status: corev1.ConditionUnknown, Reason: reasonNever, Message: message,
				LastHeartbeatTime: at, LastTransitionTime: at,
			})
			changed = true
			continue
		}
		if c.Status != corev1.ConditionUnknown {
			c.Status, c.Reason, c.Message, c.LastTransitionTime = corev1.ConditionUnknown, reasonUnknown, message, at
			changed = true
		}
	}
	return want, changed
}

func find(conditions []corev1.NodeCondition, kind corev1.NodeConditionType) *corev1.NodeCondition {
	for i := range conditions {
		if conditions[i].Type == kind {
			return &conditions[i]
		}
	}
	return nil
}

// NotReady returns the patch of a pod's condition Ready when it says that the pod is: endpoints drop
// it then. Other conditions stay: the pod may well run.
func NotReady(pod *corev1.Pod, now time.Time) (patch *corev1.PodCondition) {
	for _, c := range pod.Status.Conditions {
		if c.Type == corev1.PodReady && c.Status != corev1.ConditionFalse {
			c.Status, c.LastTransitionTime = corev1.ConditionFalse, metav1.NewTime(now).Rfc3339Copy()
			return &c
		}
	}
	return nil
}
