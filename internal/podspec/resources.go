package podspec

import (
	"fmt"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"

	"github.com/podman-swarm/podman-swarm/internal/podman"
)

// The kubelet's constants for turning CPU into cgroup values.
const (
	cpuPeriod    = 100000 // microseconds
	minQuota     = 1000
	sharesPerCPU = 1024
	minShares    = 2
	maxShares    = 262144
)

// The kubelet's OOM scores.
const (
	oomGuaranteed  = -997
	oomBestEffort  = 1000
	systemCritical = 2000000000
)

func resources(spec *podman.ContainerSpec, in Input, w *warnings) {
	score := max(oomScore(in), in.Host.Podman.MinOOMScoreAdj)
	spec.OOMScoreAdj = &score
	r := in.Container.Resources
	var missing []string
	usable := func(controller, what string, set bool) bool {
		if set && !can(in.Host.Podman, controller) {
			missing = append(missing, what)
		}
		return set && can(in.Host.Podman, controller)
	}
	var res podman.Resources
	cpuLimit, cpuRequest := r.Limits.Cpu(), r.Requests.Cpu()
	if usable("cpu", "cpu", !cpuLimit.IsZero() || !cpuRequest.IsZero()) {
		res.CPU = cpu(cpuRequest, cpuLimit)
	}
	memory := r.Limits.Memory()
	if usable("memory", "memory", !memory.IsZero()) {
		limit := memory.Value()
		res.Memory = &podman.Memory{Limit: &limit, Swap: &limit} // memory and swap together: no swap
	}
	for name, q := range r.Limits {
		size, ok := strings.CutPrefix(string(name), corev1.ResourceHugePagesPrefix)
		if ok && usable("hugetlb", string(name), true) {
			res.Huge = append(res.Huge, podman.HugepageLimit{PageSize: hugeSize(size), Limit: uint64(q.Value())})
		}
	}
	slices.SortFunc(res.Huge, func(a, b podman.HugepageLimit) int { return strings.Compare(a.PageSize, b.PageSize) })
	if res.CPU != nil || res.Memory != nil || len(res.Huge) > 0 {
		spec.Resources = &res
	}
	if len(missing) > 0 {
		slices.Sort(missing)
		w.add("resources %s of container %s are not enforced: %s", strings.Join(missing, ", "), in.Container.Name, why(in.Host.Podman))
	}
}

// can tells whether containers of this Podman can have limits of a controller.
func can(info podman.Info, controller string) bool {
	switch {
	case !info.Rootless:
		return true
	case info.CgroupVersion != "v2":
		return false
	}
	return slices.Contains(info.CgroupControllers, controller)
}

func why(info podman.Info) string {
	if info.CgroupVersion != "v2" {
		return "a rootless Podman has no resource limits on cgroup v1"
	}
	return fmt.Sprintf("only the controllers [%s] are delegated to this user", strings.Join(info.CgroupControllers, " "))
}

func cpu(request, limit *resource.Quantity) *podman.CPU {
	milli := request.MilliValue()
	if request.IsZero() {
		milli = limit.MilliValue()
	}
	shares := uint64(min(max(milli*sharesPerCPU/1000, minShares), maxShares))
	c := &podman.CPU{Shares: &shares}
	if !limit.IsZero() {
		quota := max(limit.MilliValue()*cpuPeriod/1000, minQuota)
		period := uint64(cpuPeriod)
		c.Quota, c.Period = &quota, &period
	}
	return c
}

// hugeSize turns Kubernetes' "2Mi" into OCI's "2MB".
func hugeSize(s string) string {
	if n, ok := strings.CutSuffix(s, "i"); ok {
		return n + "B"
	}
	return s + "B"
}

func oomScore(in Input) int {
	ps := in.Pod.Spec
	if ps.Priority != nil && *ps.Priority >= systemCritical {
		return oomGuaranteed
	}
	switch qosClass(in.Pod) {
	case corev1.PodQOSGuaranteed:
		return oomGuaranteed
	case corev1.PodQOSBestEffort:
		return oomBestEffort
	}
	capacity := max(in.Host.Podman.MemTotal, 1)
	adjust := 1000 - 1000*in.Container.Resources.Requests.Memory().Value()/capacity
	return int(min(max(adjust, 1000+oomGuaranteed), oomBestEffort-1))
}

// qosClass is what the API server wrote, or else computed by its rule.
func qosClass(pod *corev1.Pod) corev1.PodQOSClass {
	if pod.Status.QOSClass != "" {
		return pod.Status.QOSClass
	}
	all := slices.Concat(pod.Spec.InitContainers, pod.Spec.Containers)
	guaranteed, some := true, false
	for _, c := range all {
		for _, name := range []corev1.ResourceName{corev1.ResourceCPU, corev1.ResourceMemory} {
			request, limit := c.Resources.Requests[name], c.Resources.Limits[name]
			some = some || !request.IsZero() || !limit.IsZero()
			guaranteed = guaranteed && !limit.IsZero() && (request.IsZero() || request.Cmp(limit) == 0)
		}
	}
	switch {
	case !some:
		return corev1.PodQOSBestEffort
	case guaranteed:
		return corev1.PodQOSGuaranteed
	}
	return corev1.PodQOSBurstable
}
