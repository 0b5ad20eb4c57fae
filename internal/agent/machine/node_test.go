package machine

import (
	"errors"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/podman-swarm/podman-swarm/internal/podman"
)

func healthy() Description {
	return Description{
		Name: "n0", IPs: []string{"192.0.2.1"}, PodCIDR: "10.244.0.0/24", MaxPods: 110, Now: time.Unix(5000, 0),
		Facts: Facts{
			CPUs: 2, Memory: 8 << 30, MemoryFree: 4 << 30, Disk: 100 << 30, DiskFree: 50 << 30, InodesFree: 1,
			ImageFree: 1, ImageBytes: 50 << 30, PIDs: 100, MaxPID: 32768, LowestPort: 1024,
		},
		Podman: podman.Info{Version: "5.4.2", CgroupVersion: "v2", CgroupControllers: []string{"cpu", "memory"}},
	}
}

func TestConditions(t *testing.T) {
	for _, tc := range []struct {
		name   string
		change func(*Description)
		kind   corev1.NodeConditionType
		want   corev1.ConditionStatus
		reason string
	}{
		{"ready", func(*Description) {}, corev1.NodeReady, corev1.ConditionTrue, "KubeletReady"},
		{"podman away", func(d *Description) { d.PodmanError = errors.New("gone") }, corev1.NodeReady, corev1.ConditionFalse, "PodmanNotReachable"},
		{"no pressure", func(*Description) {}, corev1.NodeMemoryPressure, corev1.ConditionFalse, "KubeletHasSufficientMemory"},
		{"memory", func(d *Description) { d.Facts.MemoryFree = 50 << 20 }, corev1.NodeMemoryPressure, corev1.ConditionTrue, "KubeletHasInsufficientMemory"},
		{"disk", func(d *Description) { d.Facts.DiskFree = 1 << 30 }, corev1.NodeDiskPressure, corev1.ConditionTrue, "KubeletHasDiskPressure"},
		{"large disk", func(d *Description) { d.Facts.Disk, d.Facts.DiskFree = 1<<42, 50<<30 }, corev1.NodeDiskPressure, corev1.ConditionFalse, "KubeletHasNoDiskPressure"},
		{"image disk", func(d *Description) { d.Facts.ImageFree, d.Facts.ImageBytes = 0.05, 1<<30 }, corev1.NodeDiskPressure, corev1.ConditionTrue, "KubeletHasDiskPressure"},
		{"inodes", func(d *Description) { d.Facts.InodesFree = 0.01 }, corev1.NodeDiskPressure, corev1.ConditionTrue, "KubeletHasDiskPressure"},
		{"tasks", func(d *Description) { d.Facts.PIDs = 32000 }, corev1.NodePIDPressure, corev1.ConditionTrue, "KubeletHasInsufficientPID"},
		{"limits", func(*Description) {}, PodResourceLimits, corev1.ConditionTrue, "Enforced"},
		{"rootless v1", func(d *Description) { d.Podman.Rootless, d.Podman.CgroupVersion = true, "v1" }, PodResourceLimits, corev1.ConditionFalse, "RootlessCgroupV1"},
		{"not delegated", func(d *Description) { d.Podman.Rootless, d.Podman.CgroupControllers = true, []string{"memory"} }, PodResourceLimits, corev1.ConditionFalse, "ControllersNotDelegated"},
		{"not reached", func(d *Description) { d.Podman = podman.Info{} }, PodResourceLimits, corev1.ConditionUnknown, "PodmanNotReachable"},
		{"rootless ports", func(d *Description) { d.Podman.Rootless = true }, PrivilegedHostPorts, corev1.ConditionFalse, "Unprivileged"},
		{"open ports", func(d *Description) { d.Podman.Rootless, d.Facts.LowestPort = true, 0 }, PrivilegedHostPorts, corev1.ConditionTrue, "Allowed"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			d := healthy()
			tc.change(&d)
			for _, c := range Conditions(d, nil) {
				if c.Type == tc.kind && (c.Status != tc.want || c.Reason != tc.reason) {
					t.Errorf("%s is %s (%s)", c.Type, c.Status, c.Reason)
				}
			}
		})
	}
}

// Nothing is rewritten when nothing changed, and a transition time moves with the status alone.
func TestTimes(t *testing.T) {
	d := healthy()
	first := Conditions(d, nil)
	d.Now = d.Now.Add(time.Hour)
	for i, c := range Conditions(d, first) {
		if c != first[i] {
			t.Errorf("%s changed for nothing", c.Type)
		}
	}
	d.PodmanError = errors.New("gone")
	for i, c := range Conditions(d, first) {
		moved := !c.LastTransitionTime.Equal(&first[i].LastTransitionTime)
		if moved != (c.Type == corev1.NodeReady) {
			t.Errorf("%s: transition moved: %v", c.Type, moved)
		}
	}
	failing := Conditions(d, first)
	d.Now, d.PodmanError = d.Now.Add(time.Hour), errors.New("gone, in other words")
	for i, c := range Conditions(d, failing) {
		if !c.LastTransitionTime.Equal(&failing[i].LastTransitionTime) {
			t.Errorf("%s: transition without a change of status", c.Type)
		}
		if c.Type == corev1.NodeReady && !c.LastHeartbeatTime.Time.Equal(metav1.NewTime(d.Now).Rfc3339Copy().Time) {
			t.Error("new words without a new time")
		}
	}
}

func TestNode(t *testing.T) {
	n := Node(healthy(), nil)
	if got := n.Status.Capacity.Pods().Value(); got != 110 {
		t.Error(got)
	}
	if got, want := n.Status.Allocatable.Memory().Value(), int64(8<<30-100<<20); got != want {
		t.Errorf("allocatable memory %d, want %d", got, want)
	}
	if n.Spec.PodCIDR != "10.244.0.0/24" || n.Labels[corev1.LabelHostname] != "n0" || len(n.Status.Addresses) != 2 {
		t.Errorf("%+v", n)
	}
}

func TestRead(t *testing.T) {
	f, err := Read(t.TempDir(), t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	if f.CPUs < 1 || f.Memory < 1<<20 || f.MemoryFree < 1<<20 || f.Disk < 1 || f.MaxPID < 100 || f.PIDs < 1 || f.Kernel == "" {
		t.Errorf("%+v", f)
	}
	if _, _, err := parseMeminfo([]byte("Nothing: 1 kB\n")); err == nil {
		t.Error("no memory is not an error")
	}
}
