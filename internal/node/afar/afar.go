package afar

import (
	"bytes"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/client-go/kubernetes/scheme"
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
		n, ok := decode(value).(*corev1.Node)
		return ok && unreachable(n)
	case strings.HasPrefix(key, podsPrefix):
		p, ok := decode(value).(*corev1.Pod)
		return ok && evicted(p)
	}
	return false
}

func decode(value []byte) runtime.Object {
	if bytes.HasPrefix(value, []byte("k8s:enc:")) {
		return nil
	}
	obj, _, err := scheme.Codecs.UniversalDeserializer().Decode(value, nil, nil)
	if err != nil {
		return nil
	}
	return obj
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
