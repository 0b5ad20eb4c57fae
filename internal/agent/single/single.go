package single

import (
	"context"
	"fmt"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"
)

// Pod is the rule of control/liveness, from a node's side: StatefulSets, and volumes that one node at a
// time writes. After an error it is not known.
func Pod(ctx context.Context, client kubernetes.Interface, pod *corev1.Pod) (bool, error) {
	owner := metav1.GetControllerOf(pod)
	single := owner != nil && owner.Kind == "StatefulSet"
	for _, name := range claims(pod) {
		writer, err := oneWriter(ctx, client, pod.Namespace, name)
		if err != nil {
			return false, fmt.Errorf("get claim %s/%s: %w", pod.Namespace, name, err)
		}
		single = single || writer
	}
	return single, nil
}

// claims names the claims of a pod's volumes.
func claims(pod *corev1.Pod) []string {
	var out []string
	for i := range pod.Spec.Volumes {
		switch v := &pod.Spec.Volumes[i]; {
		case v.PersistentVolumeClaim != nil:
			out = append(out, v.PersistentVolumeClaim.ClaimName)
		case v.Ephemeral != nil:
			out = append(out, pod.Name+"-"+v.Name) // by its contract
		}
	}
	return out
}

// oneWriter tells whether a claim is written by one node. What this node remembers is enough to know:
// access modes never change.
func oneWriter(ctx context.Context, client kubernetes.Interface, namespace, name string) (bool, error) {
	claim, err := client.CoreV1().PersistentVolumeClaims(namespace).Get(ctx, name, metav1.GetOptions{ResourceVersion: "0"})
	if apierrors.IsNotFound(err) {
		return false, nil
	}
	if err != nil {
		return false, err
	}
	one := false
	for _, m := range claim.Spec.AccessModes {
		if m == corev1.ReadWriteMany {
			return false, nil
		}
		one = one || m == corev1.ReadWriteOnce || m == corev1.ReadWriteOncePod
	}
	return one, nil
}
