package control

import (
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

func TestTaintsFollowConditions(t *testing.T) {
	const noSchedule, noExecute = corev1.TaintEffectNoSchedule, corev1.TaintEffectNoExecute
	now, before := metav1.NewTime(time.Unix(2000, 0)), metav1.NewTime(time.Unix(1000, 0))
	condition := func(kind corev1.NodeConditionType, status corev1.ConditionStatus) corev1.NodeCondition {
		return corev1.NodeCondition{Type: kind, Status: status}
	}
	user := corev1.Taint{Key: "gpu", Value: "yes", Effect: noExecute}
	bornNotReady := corev1.Taint{Key: corev1.TaintNodeNotReady, Effect: noSchedule}
	tests := map[string]struct {
		conditions []corev1.NodeCondition
		cordoned   bool
		eviction   eviction
		have, want []corev1.Taint
		same       bool
	}{
		"a new node that said nothing":      {have: []corev1.Taint{bornNotReady}, want: []corev1.Taint{bornNotReady}, same: true},
		"a new node made without admission": {want: []corev1.Taint{bornNotReady}},
		"ready for the first time": {
			conditions: []corev1.NodeCondition{condition(corev1.NodeReady, corev1.ConditionTrue)},
			have:       []corev1.Taint{bornNotReady, user}, want: []corev1.Taint{user},
		},
		"ready and nothing to do": {
			conditions: []corev1.NodeCondition{condition(corev1.NodeReady, corev1.ConditionTrue), condition(corev1.NodeDiskPressure, corev1.ConditionFalse)},
			have:       []corev1.Taint{user}, want: []corev1.Taint{user}, same: true,
		},
		"not ready": {
			conditions: []corev1.NodeCondition{condition(corev1.NodeReady, corev1.ConditionFalse)},
			have:       []corev1.Taint{user},
			want:       []corev1.Taint{user, bornNotReady, {Key: corev1.TaintNodeNotReady, Effect: noExecute, TimeAdded: &now}},
		},
		"not ready for a while: the time stays": {
			conditions: []corev1.NodeCondition{condition(corev1.NodeReady, corev1.ConditionFalse)},
			have:       []corev1.Taint{bornNotReady, {Key: corev1.TaintNodeNotReady, Effect: noExecute, TimeAdded: &before}},
			want:       []corev1.Taint{bornNotReady, {Key: corev1.TaintNodeNotReady, Effect: noExecute, TimeAdded: &before}}, same: true,
		},
		"from not ready to unknown": {
			conditions: []corev1.NodeCondition{condition(corev1.NodeReady, corev1.ConditionUnknown)},
			have:       []corev1.Taint{bornNotReady, {Key: corev1.TaintNodeNotReady, Effect: noExecute, TimeAdded: &before}},
			want: []corev1.Taint{
				{Key: corev1.TaintNodeUnreachable, Effect: noSchedule},
				{Key: corev1.TaintNodeUnreachable, Effect: noExecute, TimeAdded: &now},
			},
		},
		"unreachable, seen by a small side": {
			conditions: []corev1.NodeCondition{condition(corev1.NodeReady, corev1.ConditionUnknown)},
			eviction:   hold,
			want:       []corev1.Taint{{Key: corev1.TaintNodeUnreachable, Effect: noSchedule}},
		},
		"unreachable, and the side has become small": {
			conditions: []corev1.NodeCondition{condition(corev1.NodeReady, corev1.ConditionUnknown)},
			eviction:   hold,
			have: []corev1.Taint{
				{Key: corev1.TaintNodeUnreachable, Effect: noSchedule}, {Key: corev1.TaintNodeUnreachable, Effect: noExecute, TimeAdded: &before},
			},
			want: []corev1.Taint{
				{Key: corev1.TaintNodeUnreachable, Effect: noSchedule}, {Key: corev1.TaintNodeUnreachable, Effect: noExecute, TimeAdded: &before},
			},
			same: true,
		},
		"reachable again, but has not said that it is ready": {
			conditions: []corev1.NodeCondition{condition(corev1.NodeReady, corev1.ConditionUnknown)},
			eviction:   spare,
			have: []corev1.Taint{
				{Key: corev1.TaintNodeUnreachable, Effect: noSchedule}, {Key: corev1.TaintNodeUnreachable, Effect: noExecute, TimeAdded: &before},
			},
			want: []corev1.Taint{{Key: corev1.TaintNodeUnreachable, Effect: noSchedule}},
		},
		"not ready is the node's own word, whatever the side": {
			conditions: []corev1.NodeCondition{condition(corev1.NodeReady, corev1.ConditionFalse)},
			eviction:   spare,
			want:       []corev1.Taint{bornNotReady, {Key: corev1.TaintNodeNotReady, Effect: noExecute, TimeAdded: &now}},
		},
		"cordoned, and every pressure": {
			conditions: []corev1.NodeCondition{
				condition(corev1.NodeMemoryPressure, corev1.ConditionTrue), condition(corev1.NodeDiskPressure, corev1.ConditionTrue),
				condition(corev1.NodePIDPressure, corev1.ConditionTrue), condition(corev1.NodeNetworkUnavailable, corev1.ConditionTrue),
				condition(corev1.NodeReady, corev1.ConditionTrue),
			},
			cordoned: true,
			want: []corev1.Taint{
				{Key: corev1.TaintNodeUnschedulable, Effect: noSchedule},
				{Key: corev1.TaintNodeMemoryPressure, Effect: noSchedule},
				{Key: corev1.TaintNodeDiskPressure, Effect: noSchedule},
				{Key: corev1.TaintNodePIDPressure, Effect: noSchedule},
				{Key: corev1.TaintNodeNetworkUnavailable, Effect: noSchedule},
			},
		},
		"uncordoned": {
			conditions: []corev1.NodeCondition{condition(corev1.NodeReady, corev1.ConditionTrue)},
			have:       []corev1.Taint{{Key: corev1.TaintNodeUnschedulable, Effect: noSchedule}},
		},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			node := &corev1.Node{Spec: corev1.NodeSpec{Unschedulable: test.cordoned, Taints: test.have}, Status: corev1.NodeStatus{Conditions: test.conditions}}
			got, changed := compileTaints(node, test.eviction, now)
			if diff := cmp.Diff(test.want, got); diff != "" {
				t.Errorf("taints (-want +got):\n%s", diff)
			}
			if changed == test.same {
				t.Errorf("changed is %v", changed)
			}
			node.Spec.Taints = got
			if again, changed := compileTaints(node, test.eviction, before); changed {
				t.Errorf("a second look changes again: %v", again)
			}
		})
	}
}
