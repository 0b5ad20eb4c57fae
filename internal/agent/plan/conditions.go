package plan

import (
	"fmt"
	"strings"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// Condition reasons, as upstream's kubelet writes them.
const (
	reasonUnknownStatuses = "UnknownContainerStatuses"
	reasonPodCompleted    = "PodCompleted"
	reasonPodFailed       = "PodFailed"
	reasonNotReady        = "ContainersNotReady"
	reasonNotInitialized  = "ContainersNotInitialized"
	reasonGatesNotReady   = "ReadinessGatesNotReady"
	reasonSandboxNotReady = "PodSandboxNotReady"
)

func owned(t corev1.PodConditionType) bool {
	switch t {
	case corev1.PodScheduled, corev1.PodReady, corev1.PodInitialized, corev1.ContainersReady,
		corev1.PodReadyToStartContainers:
		return true
	default:
		return false
	}
}

func conditions(in StatusInput, s *corev1.PodStatus) []corev1.PodCondition {
	var out []corev1.PodCondition
	for _, c := range in.Pod.Status.Conditions {
		if !owned(c.Type) {
			out = append(out, c)
		}
	}
	ready := containersReady(in, s)
	fresh := []corev1.PodCondition{
		sandboxReady(in), initializedCondition(in, s), podReady(in, ready), ready,
		{Type: corev1.PodScheduled, Status: corev1.ConditionTrue},
	}
	for _, c := range fresh {
		c.ObservedGeneration = in.Pod.Generation
		c.LastTransitionTime = metav1.NewTime(in.Now).Rfc3339Copy()
		for _, old := range [][]corev1.PodCondition{in.Pod.Status.Conditions, in.Old.Conditions} {
			if o := condition(old, c.Type); o != nil && o.Status == c.Status {
				c.LastTransitionTime = o.LastTransitionTime
			}
		}
		out = append(out, c)
	}
	return out
}

func condition(all []corev1.PodCondition, t corev1.PodConditionType) *corev1.PodCondition {
	for i := range all {
		if all[i].Type == t {
			return &all[i]
		}
	}
	return nil
}

func sandboxReady(in StatusInput) corev1.PodCondition {
	c := corev1.PodCondition{Type: corev1.PodReadyToStartContainers, Status: corev1.ConditionTrue}
	if !in.Sandbox {
		c.Status, c.Reason = corev1.ConditionFalse, reasonSandboxNotReady
	}
	return c
}

func initializedCondition(in StatusInput, s *corev1.PodStatus) corev1.PodCondition {
	c := corev1.PodCondition{Type: corev1.PodInitialized, Status: corev1.ConditionTrue}
	if s.Phase == corev1.PodSucceeded {
		c.Reason = reasonPodCompleted
		return c
	}
	for i := range s.ContainerStatuses {
		st := &s.ContainerStatuses[i]
		if st.State.Running != nil || st.State.Terminated != nil || st.LastTerminationState.Terminated != nil {
			return c
		}
	}
	if o := condition(in.Old.Conditions, c.Type); o != nil && o.Status == corev1.ConditionTrue {
		return c
	}
	var incomplete []string
	for i := range s.InitContainerStatuses {
		if !s.InitContainerStatuses[i].Ready {
			incomplete = append(incomplete, s.InitContainerStatuses[i].Name)
		}
	}
	if len(incomplete) > 0 {
		c.Status, c.Reason = corev1.ConditionFalse, reasonNotInitialized
		c.Message = fmt.Sprintf("containers with incomplete status: %s", incomplete)
	}
	return c
}

func containersReady(in StatusInput, s *corev1.PodStatus) corev1.PodCondition {
	c := corev1.PodCondition{Type: corev1.ContainersReady, Status: corev1.ConditionFalse}
	var unready, unknown []string
	for i := range in.Pod.Spec.Containers {
		name := in.Pod.Spec.Containers[i].Name
		switch st := find(s.ContainerStatuses, name); {
		case st == nil:
			unknown = append(unknown, name)
		case !st.Ready:
			unready = append(unready, name)
		}
	}
	switch {
	case s.Phase == corev1.PodSucceeded:
		c.Reason = reasonPodCompleted
	case s.Phase == corev1.PodFailed:
		c.Reason = reasonPodFailed
	case s.ContainerStatuses == nil:
		c.Reason = reasonUnknownStatuses
	case len(unready)+len(unknown) > 0:
		c.Reason = reasonNotReady
		var msg []string
		if len(unknown) > 0 {
			msg = append(msg, fmt.Sprintf("containers with unknown status: %s", unknown))
		}
		if len(unready) > 0 {
			msg = append(msg, fmt.Sprintf("containers with unready status: %s", unready))
		}
		c.Message = strings.Join(msg, ", ")
	default:
		c.Status = corev1.ConditionTrue
	}
	return c
}

func podReady(in StatusInput, containers corev1.PodCondition) corev1.PodCondition {
	c := containers
	c.Type = corev1.PodReady
	if c.Status != corev1.ConditionTrue {
		return c
	}
	var msg []string
	for _, g := range in.Pod.Spec.ReadinessGates {
		switch o := condition(in.Pod.Status.Conditions, g.ConditionType); {
		case o == nil:
			msg = append(msg, fmt.Sprintf("corresponding condition of pod readiness gate %q does not exist.",
				string(g.ConditionType)))
		case o.Status != corev1.ConditionTrue:
			msg = append(msg, fmt.Sprintf("the status of pod readiness gate %q is not \"True\", but %v",
				string(g.ConditionType), o.Status))
		}
	}
	if len(msg) > 0 {
		c.Status, c.Reason, c.Message = corev1.ConditionFalse, reasonGatesNotReady, strings.Join(msg, ", ")
	}
	return c
}
