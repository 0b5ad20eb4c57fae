package machine

import (
	"fmt"
	"maps"
	"runtime"
	"slices"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/podman-swarm/podman-swarm/internal/podman"
)

// Conditions of a node beyond upstream's: what its Podman can and cannot do.
const (
	// PodResourceLimits is False where limits of containers are not enforced.
	PodResourceLimits corev1.NodeConditionType = "PodResourceLimits"
	// PrivilegedHostPorts is False where pods cannot have host ports below a bound.
	PrivilegedHostPorts corev1.NodeConditionType = "PrivilegedHostPorts"
)

// Thresholds of pressure: upstream's shares, but only while little is left in absolute terms too,
// since a tenth of a large disk is no emergency.
const (
	memoryLow = 100 << 20
	diskShare = 0.10
	inodeLow  = 0.05
	diskLow   = 5 << 30
	pidShare  = 0.90
)

// Description is all that a Node object says.
type Description struct {
	Name       string
	IPs        []string
	PodCIDR    string
	MaxPods    int
	StreamPort int32
	Version    string            // kubeletVersion
	Labels     map[string]string // beside those every node has
	Facts      Facts
	Podman     podman.Info
	// PodmanError is why Podman cannot be used; nil when it can.
	PodmanError error
	Now         time.Time
}

// Node compiles the object. Transition times are those of old where nothing changed.
func Node(d Description, old []corev1.NodeCondition) *corev1.Node {
	n := &corev1.Node{
		ObjectMeta: metav1.ObjectMeta{Name: d.Name, Labels: d.labels()},
		Spec:       corev1.NodeSpec{PodCIDR: d.PodCIDR, PodCIDRs: []string{d.PodCIDR}},
		Status: corev1.NodeStatus{
			Capacity: capacity(d), Allocatable: Allocatable(d), NodeInfo: systemInfo(d),
			DaemonEndpoints: corev1.NodeDaemonEndpoints{KubeletEndpoint: corev1.DaemonEndpoint{Port: d.StreamPort}},
		},
	}
	for _, ip := range d.IPs {
		n.Status.Addresses = append(n.Status.Addresses, corev1.NodeAddress{Type: corev1.NodeInternalIP, Address: ip})
	}
	n.Status.Addresses = append(n.Status.Addresses, corev1.NodeAddress{Type: corev1.NodeHostName, Address: d.Name})
	n.Status.Conditions = Conditions(d, old)
	return n
}

// Labels are those every node has.
func Labels(name string) map[string]string {
	return map[string]string{
		corev1.LabelHostname:      name,
		corev1.LabelOSStable:      runtime.GOOS,
		corev1.LabelArchStable:    runtime.GOARCH,
		"beta.kubernetes.io/os":   runtime.GOOS,
		"beta.kubernetes.io/arch": runtime.GOARCH,
	}
}

func (d Description) labels() map[string]string {
	labels := Labels(d.Name)
	maps.Copy(labels, d.Labels)
	return labels
}

func capacity(d Description) corev1.ResourceList {
	return corev1.ResourceList{
		corev1.ResourceCPU:              *resource.NewQuantity(int64(d.Facts.CPUs), resource.DecimalSI),
		corev1.ResourceMemory:           *resource.NewQuantity(d.Facts.Memory, resource.BinarySI),
		corev1.ResourcePods:             *resource.NewQuantity(int64(d.MaxPods), resource.DecimalSI),
		corev1.ResourceEphemeralStorage: *resource.NewQuantity(d.Facts.Disk, resource.BinarySI),
	}
}

// Allocatable leaves the machine what upstream's default eviction thresholds leave it.
func Allocatable(d Description) corev1.ResourceList {
	a := capacity(d)
	a[corev1.ResourceMemory] = *resource.NewQuantity(max(d.Facts.Memory-memoryLow, 0), resource.BinarySI)
	a[corev1.ResourceEphemeralStorage] = *resource.NewQuantity(d.Facts.Disk/10*9, resource.BinarySI)
	return a
}

func systemInfo(d Description) corev1.NodeSystemInfo {
	return corev1.NodeSystemInfo{
		MachineID: d.Facts.MachineID, SystemUUID: d.Facts.SystemUUID, BootID: d.Facts.BootID,
		KernelVersion: d.Facts.Kernel, OSImage: d.Facts.OSImage, KubeletVersion: d.Version,
		ContainerRuntimeVersion: "podman://" + d.Podman.Version,
		OperatingSystem:         runtime.GOOS, Architecture: runtime.GOARCH,
	}
}

// Conditions are the node's; those of old that are not ours to write are not among them.
func Conditions(d Description, old []corev1.NodeCondition) []corev1.NodeCondition {
	out := []corev1.NodeCondition{
		pressure(corev1.NodeMemoryPressure, d.Facts.MemoryFree < memoryLow, "Memory", "memory available"),
		pressure(corev1.NodeDiskPressure, d.Facts.diskLow(), "Disk", ""),
		pressure(corev1.NodePIDPressure, d.Facts.MaxPID > 0 &&
			float64(d.Facts.PIDs) > pidShare*float64(d.Facts.MaxPID), "PID", "PID available"),
		limits(d), ports(d), ready(d),
	}
	now := metav1.NewTime(d.Now).Rfc3339Copy()
	for i := range out {
		c := &out[i]
		c.LastHeartbeatTime, c.LastTransitionTime = now, now
		j := slices.IndexFunc(old, func(o corev1.NodeCondition) bool { return o.Type == c.Type })
		if j < 0 {
			continue
		}
		o := old[j]
		if o.Status == c.Status {
			c.LastTransitionTime = o.LastTransitionTime
			if o.Reason == c.Reason && o.Message == c.Message {
				// Nothing is written only to say that nothing changed: liveness is not told here.
				c.LastHeartbeatTime = o.LastHeartbeatTime
			}
		}
	}
	return out
}

func (f Facts) diskLow() bool {
	pods := f.Disk > 0 && float64(f.DiskFree) < diskShare*float64(f.Disk) && f.DiskFree < diskLow
	images := f.ImageFree < diskShare && f.ImageBytes < diskLow
	return pods || images || f.Disk > 0 && f.InodesFree < inodeLow
}

// pressure words a condition as upstream does.
func pressure(t corev1.NodeConditionType, yes bool, what, message string) corev1.NodeCondition {
	c := corev1.NodeCondition{Type: t, Status: corev1.ConditionFalse}
	switch {
	case t == corev1.NodeDiskPressure && yes:
		c.Reason, c.Message = "KubeletHasDiskPressure", "kubelet has disk pressure"
	case t == corev1.NodeDiskPressure:
		c.Reason, c.Message = "KubeletHasNoDiskPressure", "kubelet has no disk pressure"
	case yes:
		c.Reason, c.Message = "KubeletHasInsufficient"+what, "kubelet has insufficient "+message
	default:
		c.Reason, c.Message = "KubeletHasSufficient"+what, "kubelet has sufficient "+message
	}
	if yes {
		c.Status = corev1.ConditionTrue
	}
	return c
}

func ready(d Description) corev1.NodeCondition {
	if d.PodmanError != nil {
		return corev1.NodeCondition{
			Type: corev1.NodeReady, Status: corev1.ConditionFalse,
			Reason: "PodmanNotReachable", Message: d.PodmanError.Error(),
		}
	}
	return corev1.NodeCondition{
		Type: corev1.NodeReady, Status: corev1.ConditionTrue,
		Reason: "KubeletReady", Message: "kubelet is posting ready status",
	}
}

func limits(d Description) corev1.NodeCondition {
	c := corev1.NodeCondition{
		Type: PodResourceLimits, Status: corev1.ConditionTrue,
		Reason: "Enforced", Message: "CPU and memory limits of containers are enforced",
	}
	var missing []string
	for _, ctl := range []string{"cpu", "memory"} {
		if !slices.Contains(d.Podman.CgroupControllers, ctl) {
			missing = append(missing, ctl)
		}
	}
	switch {
	case d.Podman.Version == "":
		c.Status, c.Reason, c.Message = corev1.ConditionUnknown, "PodmanNotReachable", "Podman has not been reached yet"
	case d.Podman.Rootless && d.Podman.CgroupVersion == "v1":
		c.Status, c.Reason = corev1.ConditionFalse, "RootlessCgroupV1"
		c.Message = "this user's containers have no CPU and memory limits: the machine uses cgroup v1"
	case len(missing) > 0 && d.Podman.Rootless:
		c.Status, c.Reason = corev1.ConditionFalse, "ControllersNotDelegated"
		c.Message = fmt.Sprintf("limits are not enforced for %v: the machine does not delegate these cgroup controllers to this user", missing)
	}
	return c
}

func ports(d Description) corev1.NodeCondition {
	if d.Podman.Rootless && d.Facts.LowestPort > 1 {
		return corev1.NodeCondition{
			Type: PrivilegedHostPorts, Status: corev1.ConditionFalse, Reason: "Unprivileged",
			Message: fmt.Sprintf("host ports below %d cannot be opened by this user (sysctl net.ipv4.ip_unprivileged_port_start)",
				d.Facts.LowestPort),
		}
	}
	return corev1.NodeCondition{
		Type: PrivilegedHostPorts, Status: corev1.ConditionTrue, Reason: "Allowed", Message: "any host port can be opened",
	}
}
