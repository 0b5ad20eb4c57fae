package afar

import (
	"bytes"
	"testing"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/serializer/protobuf"
	"k8s.io/client-go/kubernetes/scheme"

	"github.com/podman-swarm/podman-swarm/internal/state"
)

// encoded is an object as the API server stores it.
func encoded(t *testing.T, obj runtime.Object) []byte {
	t.Helper()
	var b bytes.Buffer
	codec := scheme.Codecs.EncoderForVersion(protobuf.NewSerializer(scheme.Scheme, scheme.Scheme), corev1.SchemeGroupVersion)
	if err := codec.Encode(obj, &b); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

func TestHanding(t *testing.T) {
	now := metav1.Now()
	ready := func(s corev1.ConditionStatus) corev1.NodeStatus {
		return corev1.NodeStatus{Conditions: []corev1.NodeCondition{{Type: corev1.NodeReady, Status: s}}}
	}
	disrupted := corev1.PodStatus{Conditions: []corev1.PodCondition{{
		Type: corev1.DisruptionTarget, Status: corev1.ConditionTrue, Reason: "DeletionByTaintManager",
	}}}
	for name, c := range map[string]struct {
		key  string
		obj  runtime.Object
		want state.Handing
	}{
		"a node that answers":        {"/minions/n1", &corev1.Node{Status: ready(corev1.ConditionTrue)}, state.HandOver},
		"a node that says it is ill": {"/minions/n1", &corev1.Node{Status: ready(corev1.ConditionFalse)}, state.HandOver},
		"a node not seen":            {"/minions/n1", &corev1.Node{Status: ready(corev1.ConditionUnknown)}, state.Record},
		"a node still tainted": {"/minions/n1", &corev1.Node{
			Spec:   corev1.NodeSpec{Taints: []corev1.Taint{{Key: corev1.TaintNodeUnreachable, Effect: corev1.TaintEffectNoExecute}}},
			Status: ready(corev1.ConditionTrue),
		}, state.Record},
		"a pod":               {"/pods/default/a", &corev1.Pod{}, state.HandOver},
		"a pod being deleted": {"/pods/default/a", &corev1.Pod{ObjectMeta: metav1.ObjectMeta{DeletionTimestamp: &now}}, state.HandOver},
		"a pod evicted":       {"/pods/default/a", &corev1.Pod{ObjectMeta: metav1.ObjectMeta{DeletionTimestamp: &now}, Status: disrupted}, state.Withhold},
		"another kind":        {"/configmaps/default/a", &corev1.ConfigMap{}, state.HandOver},
	} {
		t.Run(name, func(t *testing.T) {
			if got := Handing(c.key, encoded(t, c.obj)); got != c.want {
				t.Errorf("Handing = %v, want %v", got, c.want)
			}
		})
	}
	for _, junk := range []string{"", "k8s:enc:secretbox:v1:x", "k8s\x00\xff"} {
		if Handing("/pods/default/a", []byte(junk)) != state.HandOver {
			t.Errorf("%q was taken for a judgement", junk)
		}
	}
}
