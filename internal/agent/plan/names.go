package plan

import (
	"fmt"
	"hash/fnv"
	"strconv"

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

// Hash is the identity of a container's definition: a running container is replaced when it
// changes. Only the name and the image count, the API forbids changing the rest.
func Hash(c *corev1.Container) string {
	h := fnv.New32a()
	_, _ = h.Write([]byte(c.Name + "\x00" + c.Image))
	return strconv.FormatUint(uint64(h.Sum32()), 16)
}
