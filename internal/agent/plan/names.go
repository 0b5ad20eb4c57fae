package plan

import (
	"fmt"

	corev1 "k8s.io/api/core/v1"
)

// RuntimeName is the scheme of container IDs and of the node's containerRuntimeVersion.
const RuntimeName = "podman"

// ContainerID writes a container's ID as the API wants it.
func ContainerID(id string) string { return RuntimeName + "://" + id }

// PodLabel names a pod in messages, as upstream does.
func PodLabel(pod *corev1.Pod) string {
	return fmt.Sprintf("%s_%s(%s)", pod.Name, pod.Namespace, pod.UID)
}
