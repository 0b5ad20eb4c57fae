package podspec

import (
	corev1 "k8s.io/api/core/v1"

	"github.com/podman-swarm/podman-swarm/internal/podman"
)

// Pod compiles the Podman pod that groups the containers. It has no infra container, unless the containers share a
// process namespace: that one dies with its first process, so a process of its own must hold it. The network namespace
// is never Podman's: each container joins Input.NetNS.
func Pod(pod *corev1.Pod, host Facts) podman.PodSpec {
	spec := podman.PodSpec{Name: PodName(pod), Labels: podLabels(pod, host), Shared: []string{}, NoInfra: true}
	if SharesPID(pod) {
		spec.NoInfra = false
		spec.InfraName = spec.Name + "-infra"
		spec.Shared = []string{"pid"}
		spec.NetNS = podman.Namespace{Mode: "none"}
		spec.ExitPolicy = "continue"
	}
	return spec
}

// SharesPID tells whether the pod's containers see each other's processes, by way of an infra container.
func SharesPID(pod *corev1.Pod) bool {
	return pod.Spec.ShareProcessNamespace != nil && *pod.Spec.ShareProcessNamespace && !pod.Spec.HostPID
}
