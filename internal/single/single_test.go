package single

import (
	"testing"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

func TestPod(t *testing.T) {
	yes := true
	owned := func(kind string, controller *bool) *corev1.Pod {
		return &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Name: "p", OwnerReferences: []metav1.OwnerReference{{Kind: kind, Controller: controller}}}}
	}
	with := func(source corev1.VolumeSource) *corev1.Pod {
		return &corev1.Pod{
			ObjectMeta: metav1.ObjectMeta{Name: "p"},
			Spec:       corev1.PodSpec{Volumes: []corev1.Volume{{Name: "tmp"}, {Name: "v", VolumeSource: source}}},
		}
	}
	claimed := func(name string) *corev1.Pod {
		return with(corev1.VolumeSource{PersistentVolumeClaim: &corev1.PersistentVolumeClaimVolumeSource{ClaimName: name}})
	}
	claims := map[string][]corev1.PersistentVolumeAccessMode{
		"once": {corev1.ReadWriteOnce}, "pod": {corev1.ReadWriteOncePod}, "many": {corev1.ReadWriteMany}, "read": {corev1.ReadOnlyMany},
		"either": {corev1.ReadWriteOnce, corev1.ReadWriteMany}, "p-v": {corev1.ReadWriteOnce},
	}
	claim := func(name string) *corev1.PersistentVolumeClaim {
		modes, ok := claims[name]
		if !ok {
			return nil
		}
		return &corev1.PersistentVolumeClaim{Spec: corev1.PersistentVolumeClaimSpec{AccessModes: modes}}
	}
	for name, tt := range map[string]struct {
		pod  *corev1.Pod
		want bool
	}{
		"alone":                       {&corev1.Pod{}, false},
		"of a StatefulSet":            {owned("StatefulSet", &yes), true},
		"mentions a StatefulSet":      {owned("StatefulSet", nil), false},
		"of a ReplicaSet":             {owned("ReplicaSet", &yes), false},
		"ReadWriteOnce":               {claimed("once"), true},
		"ReadWriteOncePod":            {claimed("pod"), true},
		"ReadWriteMany":               {claimed("many"), false},
		"ReadOnlyMany":                {claimed("read"), false},
		"ReadWriteOnce or Many":       {claimed("either"), false},
		"a claim that does not exist": {claimed("none"), false},
		"a volume of its own":         {with(corev1.VolumeSource{Ephemeral: &corev1.EphemeralVolumeSource{}}), true},
	} {
		t.Run(name, func(t *testing.T) {
			if got := Pod(tt.pod, claim); got != tt.want {
				t.Errorf("got %v", got)
			}
		})
	}
}
