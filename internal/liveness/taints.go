package liveness

import (
	"slices"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// conditionTaints says which taint a condition's status puts on a node.
// Source: k8s.io/kubernetes/pkg/controller/nodelifecycle, nodeConditionToTaintKeyStatusMap.
func conditionTaints() map[corev1.NodeConditionType]map[corev1.ConditionStatus]string {
	return map[corev1.NodeConditionType]map[corev1.ConditionStatus]string{
		corev1.NodeReady: {
			corev1.ConditionFalse:   corev1.TaintNodeNotReady,
			corev1.ConditionUnknown: corev1.TaintNodeUnreachable,
		},
		corev1.NodeMemoryPressure:     {corev1.ConditionTrue: corev1.TaintNodeMemoryPressure},
		corev1.NodeDiskPressure:       {corev1.ConditionTrue: corev1.TaintNodeDiskPressure},
		corev1.NodePIDPressure:        {corev1.ConditionTrue: corev1.TaintNodePIDPressure},
		corev1.NodeNetworkUnavailable: {corev1.ConditionTrue: corev1.TaintNodeNetworkUnavailable},
	}
}

// managed are the taint keys that are ours to set and to remove.
func managed() []string {
	return []string{
		corev1.TaintNodeNotReady, corev1.TaintNodeUnreachable, corev1.TaintNodeUnschedulable, corev1.TaintNodeMemoryPressure,
		corev1.TaintNodeDiskPressure, corev1.TaintNodePIDPressure, corev1.TaintNodeNetworkUnavailable,
	}
}

// compile returns the taints a node should have: those of others as they are, ours by its conditions.
// A node that has not reported yet keeps the not-ready taint it was admitted with. changed tells
// whether that differs from what the node has.
func compile(node *corev1.Node, now metav1.Time) (taints []corev1.Taint, changed bool) {
	keys := managed()
	for _, t := range node.Spec.Taints {
		if !slices.Contains(keys, t.Key) {
			taints = append(taints, t)
		}
	}
	for _, w := range wanted(node) {
		i := slices.IndexFunc(node.Spec.Taints, func(t corev1.Taint) bool { return t.MatchTaint(&w) })
		if i >= 0 {
			taints = append(taints, node.Spec.Taints[i]) // with the time it was added: evictions count from there
			continue
		}
		if w.Effect == corev1.TaintEffectNoExecute {
			w.TimeAdded = &now
		}
		taints = append(taints, w)
		changed = true
	}
	return taints, changed || len(taints) != len(node.Spec.Taints)
}

func wanted(node *corev1.Node) []corev1.Taint {
	var out []corev1.Taint
	reported := false
	for _, c := range node.Status.Conditions {
		reported = reported || c.Type == corev1.NodeReady
		key := conditionTaints()[c.Type][c.Status]
		if key == "" {
			continue
		}
		out = append(out, corev1.Taint{Key: key, Effect: corev1.TaintEffectNoSchedule})
		if c.Type == corev1.NodeReady {
			out = append(out, corev1.Taint{Key: key, Effect: corev1.TaintEffectNoExecute})
		}
	}
	if !reported {
		out = append(out, corev1.Taint{Key: corev1.TaintNodeNotReady, Effect: corev1.TaintEffectNoSchedule})
	}
	if node.Spec.Unschedulable {
		out = append(out, corev1.Taint{Key: corev1.TaintNodeUnschedulable, Effect: corev1.TaintEffectNoSchedule})
	}
	return out
}
