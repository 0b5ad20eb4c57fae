package afar

import (
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"

	"github.com/podman-swarm/podman-swarm/internal/node/stored"
)

// Where the API server keeps nodes and pods.
const (
	nodesPrefix = "/minions/"
	podsPrefix  = "/pods/"
)

// Judged tells whether an entry is a judgement from afar: a node that was unreachable from here, or
// a pod that was evicted because its node was.
func Judged(key string, value []byte) bool {
	switch {
	case strings.HasPrefix(key, nodesPrefix):
		n, ok := stored.Object(value).(*corev1.Node)
		return ok && unreachable(n)
	case strings.HasPrefix(key, podsPrefix):
		p, ok := stored.Object(value).(*corev1.Pod)
		return ok && evicted(p)
	}
	return false
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
