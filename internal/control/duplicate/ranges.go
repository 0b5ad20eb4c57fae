package duplicate

import (
	"fmt"
	"net/netip"
	"slices"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// PodRangeConflict is True on a Node whose pod range is an older Node's too.
const PodRangeConflict corev1.NodeConditionType = "PodRangeConflict"

// Ranges returns, by name, what is wrong with the Nodes whose pod range overlaps an older Node's.
func Ranges(all []*corev1.Node) map[string]string {
	sorted := slices.Clone(all)
	slices.SortFunc(sorted, func(a, b *corev1.Node) int { return older(&a.ObjectMeta, &b.ObjectMeta) })
	type owned struct {
		netip.Prefix
		by string
	}
	var taken []owned
	wrong := map[string]string{}
	for _, n := range sorted {
		r, err := netip.ParsePrefix(n.Spec.PodCIDR)
		if err != nil {
			continue // it has none yet
		}
		i := slices.IndexFunc(taken, func(o owned) bool { return o.Overlaps(r) })
		if i >= 0 {
			wrong[n.Name] = fmt.Sprintf("pod range %s is also that of node %s, which is older: pods of the two cannot be told apart; "+
				"drain this node, let it leave and join again to get a range of its own", r, taken[i].by)
			continue
		}
		taken = append(taken, owned{r, n.Name})
	}
	return wrong
}

// Condition returns the condition that says so, or nil when the node's says it already.
func Condition(node *corev1.Node, wrong string, now metav1.Time) *corev1.NodeCondition {
	c := corev1.NodeCondition{
		Type: PodRangeConflict, Status: corev1.ConditionTrue, Reason: "RangeTaken", Message: wrong,
		LastHeartbeatTime: now, LastTransitionTime: now,
	}
	if wrong == "" {
		c.Status, c.Reason, c.Message = corev1.ConditionFalse, "RangeOwned", "no other node has this pod range"
	}
	for _, have := range node.Status.Conditions {
		if have.Type != PodRangeConflict {
			continue
		}
		if have.Status == c.Status && have.Message == c.Message {
			return nil
		}
		if have.Status == c.Status {
			c.LastTransitionTime = have.LastTransitionTime
		}
		return &c
	}
	if wrong == "" {
		return nil // nothing was ever wrong
	}
	return &c
}
