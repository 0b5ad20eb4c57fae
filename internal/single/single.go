package single

import (
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// Pod tells whether a pod must not run twice at a time: it has an identity, or a volume that belongs
// to one node. claim returns nil for a claim that does not exist.
func Pod(pod *corev1.Pod, claim func(name string) *corev1.PersistentVolumeClaim) bool {
	if owner := metav1.GetControllerOf(pod); owner != nil && owner.Kind == "StatefulSet" {
		return true
	}
	for i := range pod.Spec.Volumes {
		v := &pod.Spec.Volumes[i]
		name := ""
		switch {
		case v.PersistentVolumeClaim != nil:
			name = v.PersistentVolumeClaim.ClaimName
		case v.Ephemeral != nil:
			name = pod.Name + "-" + v.Name // by its contract
		default:
			continue
		}
		if c := claim(name); c != nil && writtenByOne(c.Spec.AccessModes) {
			return true
		}
	}
	return false
}

// writtenByOne tells whether no mode lets several nodes write.
func writtenByOne(modes []corev1.PersistentVolumeAccessMode) bool {
	one := false
	for _, m := range modes {
		switch m {
		case corev1.ReadWriteMany:
			return false
		case corev1.ReadWriteOnce, corev1.ReadWriteOncePod:
			one = true
		case corev1.ReadOnlyMany:
		}
	}
	return one
}
