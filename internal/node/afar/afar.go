package afar

import (
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"

	"github.com/podman-swarm/podman-swarm/internal/node/stored"
	"github.com/podman-swarm/podman-swarm/internal/state"
)

// Where the API server keeps nodes and pods.
const (
	nodesPrefix = "/minions/"
	podsPrefix  = "/pods/"
)

// Handing tells of an entry that is a judgement from afar that it is not handed over as it is. A node that was
// unreachable from here is recorded: people write to it, too. A pod that was evicted because its node was
// unreachable is nobody's work any more, and there are many.
func Handing(key string, value []byte) state.Handing {
	switch {
	case strings.HasPrefix(key, nodesPrefix):
		if n, ok := stored.Object(value).(*corev1.Node); ok && unreachable(n) {
			return state.Record
		}
	case strings.HasPrefix(key, podsPrefix):
		if p, ok := stored.Object(value).(*corev1.Pod); ok && evicted(p) {
			return state.Withhold
		}
	}
	return state.HandOver
}

func unreachable(n *corev1.Node) bool {
	return slices.ContainsFunc(n.Spec.Taints, func(t corev1.Taint) bool { return t.Key == corev1.TaintNodeUnreachable }) ||
		slices.ContainsFunc(n.Status.Conditions, func(c corev1.NodeCondition) bool {
			return c.Type == corev1.NodeReady && c.Status == corev1.ConditionUnknown
		})
}

// evicted recognizes what the taint manager marked for deletion and no node has ended: a node that
// can be reached removes its pods' objects itself.
func evicted(p *corev1.Pod) bool {
	return p.DeletionTimestamp != nil && slices.ContainsFunc(p.Status.Conditions, func(c corev1.PodCondition) bool {
		return c.Type == corev1.DisruptionTarget && c.Status == corev1.ConditionTrue && c.Reason == "DeletionByTaintManager"
	})
}
