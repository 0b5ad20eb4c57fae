package agent

import (
	"context"
	"errors"
	"net/netip"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/podman-swarm/podman-swarm/internal/podman"
	"github.com/podman-swarm/podman-swarm/internal/podman/podmantest"
)

func TestPodRuns(t *testing.T) {
	inWorld(t, func(w *world) {
		t := w.t
		w.create(newPod("a", func(p *corev1.Pod) {
			p.Spec.Containers[0].Ports = []corev1.ContainerPort{{ContainerPort: 80, HostPort: 8080, Protocol: "TCP"}}
		}))
		w.want("a", "Running c=running+")
		p := w.get("a")
		if p.Status.PodIP != "10.244.0.1" || p.Status.HostIP != "192.0.2.1" || p.Status.StartTime == nil {
			t.Errorf("%+v", p.Status)
		}
		if n := w.writes.get("patch pods status"); n != 1 {
			t.Errorf("%d status writes for one pod, want 1", n)
		}
		if !w.net.ports[8080] {
			t.Error("the host port is closed")
		}
		w.wait(time.Second)
		if got, want := strings.Join(w.events("a"), " "), "Pulled Created Started"; got != want {
			t.Errorf("events %s", got)
		}
		w.deletePod("a", 30)
		w.wait(time.Second)
		w.want("a", "gone")
		w.nothingLeft()
	})
}

func TestInitContainers(t *testing.T) {
	inWorld(t, func(w *world) {
		w.podman.Behave = func(s podman.ContainerSpec) podmantest.Behavior {
			if strings.Contains(s.Name, "_i") {
				return podmantest.Behavior{Exits: true, After: 2 * time.Second}
			}
			return podmantest.Behavior{}
		}
		w.create(newPod("a", func(p *corev1.Pod) {
			p.Spec.InitContainers = []corev1.Container{{Name: "i1", Image: "app:1"}, {Name: "i2", Image: "app:1"}}
		}))
		w.want("a", "Pending i1=running i2=PodInitializing c=PodInitializing")
		w.wait(2 * time.Second)
		w.want("a", "Pending i1=Completed(0)+ i2=running c=PodInitializing")
		w.wait(2 * time.Second)
		w.want("a", "Running i1=Completed(0)+ i2=Completed(0)+ c=running+")
	})
}

func TestCrashLoop(t *testing.T) {
	inWorld(t, func(w *world) {
		t := w.t
		w.podman.Behave = func(podman.ContainerSpec) podmantest.Behavior {
			return podmantest.Behavior{Exits: true, After: time.Second, Code: 3}
		}
		w.create(newPod("a", nil))
		w.wait(time.Second)
		w.want("a", "Running c=running<Error(3)x1+") // the first restart is at once
		w.wait(time.Second)
		w.want("a", "Running c=CrashLoopBackOff<Error(3)x1")
		w.wait(9 * time.Second)
		w.want("a", "Running c=CrashLoopBackOff<Error(3)x1")
		w.wait(time.Second)
		w.want("a", "Running c=running<Error(3)x2+")
		w.wait(20 * time.Second)
		w.want("a", "Running c=CrashLoopBackOff<Error(3)x2")
		w.wait(time.Second)
		w.want("a", "Running c=running<Error(3)x3+")
		msg := ""
		w.wait(time.Second)
		for _, c := range w.get("a").Status.ContainerStatuses {
			msg = c.State.Waiting.Message
		}
		if want := "back-off 40s restarting failed container=c pod=a_default(uid-a)"; msg != want {
			t.Errorf("message %q", msg)
		}
		// Of the dead only one is kept.
		list, err := w.podman.Containers(t.Context(), nil)
		if err != nil || len(list) > 2 {
			t.Errorf("%d containers, %v", len(list), err)
		}
	})
}

func TestRunOnce(t *testing.T) {
	inWorld(t, func(w *world) {
		t := w.t
		w.podman.Behave = func(s podman.ContainerSpec) podmantest.Behavior {
			b := podmantest.Behavior{Exits: true, After: time.Second}
			if strings.Contains(s.Name, "bad") {
				b.Code = 1
			}
			return b
		}
		w.create(newPod("good", never))
		w.create(newPod("bad", never))
		w.wait(2 * time.Second)
		w.want("good", "Succeeded c=Completed(0)")
		w.want("bad", "Failed c=Error(1)")
		// What is over keeps its log and nothing else.
		if list, err := w.podman.Containers(t.Context(), nil); err != nil || len(list) > 0 {
			t.Errorf("%d containers are left, %v", len(list), err)
		}
		w.stop()
		writes := w.writes.get("patch pods status")
		w.start()
		w.want("good", "Succeeded c=Completed(0)")
		if n := w.writes.get("patch pods status"); n != writes {
			t.Errorf("%d statuses are written to say nothing new", n-writes)
		}
		w.deletePod("good", 0)
		w.deletePod("bad", 0)
		w.wait(time.Second)
		w.want("good", "gone")
		w.nothingLeft()
	})
}

func TestImages(t *testing.T) {
	inWorld(t, func(w *world) {
		w.create(newPod("a", func(p *corev1.Pod) { p.Spec.Containers[0].Image = "other:1" }))
		w.want("a", "Pending c=ErrImagePull")
		w.wait(3 * time.Second)
		w.want("a", "Pending c=ImagePullBackOff")
		w.podman.AddRemote("other:1", podman.Image{Cmd: []string{"/x"}})
		w.wait(8 * time.Second)
		w.want("a", "Running c=running+")
		w.create(newPod("b", func(p *corev1.Pod) {
			p.Spec.Containers[0].Image, p.Spec.Containers[0].ImagePullPolicy = "third:1", corev1.PullNever
		}))
		w.want("b", "Pending c=ErrImageNeverPull")
		w.deletePod("b", 30)
		w.wait(time.Second)
		w.want("b", "gone")
	})
}

func TestStartFailures(t *testing.T) {
	inWorld(t, func(w *world) {
		t := w.t
		w.podman.Behave = func(podman.ContainerSpec) podmantest.Behavior {
			return podmantest.Behavior{StartError: errors.New("crun: executable file `/app` not found in $PATH: No such file or directory")}
		}
		w.create(newPod("a", nil))
		w.want("a", "Running c=RunContainerError<ContainerCannotRun(127)")
		w.wait(3 * time.Second)
		w.want("a", "Running c=CrashLoopBackOff<ContainerCannotRun(127)x1")
		w.create(newPod("b", func(p *corev1.Pod) {
			p.Spec.Containers[0].EnvFrom = []corev1.EnvFromSource{{ConfigMapRef: &corev1.ConfigMapEnvSource{
				LocalObjectReference: corev1.LocalObjectReference{Name: "missing"},
			}}}
		}))
		w.want("b", "Pending c=CreateContainerConfigError")
		w.podman.Behave = nil
		if _, err := w.api.CoreV1().ConfigMaps("default").Create(t.Context(),
			&corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Name: "missing", Namespace: "default"}}, metav1.CreateOptions{}); err != nil {
			t.Fatal(err)
		}
		w.wait(10 * time.Second)
		w.want("b", "Running c=running+")
	})
}

func TestGracefulDeletion(t *testing.T) {
	inWorld(t, func(w *world) {
		w.podman.Behave = func(podman.ContainerSpec) podmantest.Behavior { return podmantest.Behavior{IgnoreTerm: true} }
		w.create(newPod("a", nil))
		w.want("a", "Running c=running+")
		w.deletePod("a", 20)
		w.wait(19 * time.Second)
		w.want("a", "Running c=running+")
		w.wait(2 * time.Second)
		w.want("a", "gone")
		w.nothingLeft()
		// A second deletion shortens the wait.
		w.create(newPod("b", nil))
		w.deletePod("b", 3600)
		w.wait(time.Minute)
		w.want("b", "Running c=running+")
		w.deletePod("b", 1)
		w.wait(3 * time.Second)
		w.want("b", "gone")
		w.nothingLeft()
	})
}

func TestForcedDeletion(t *testing.T) {
	inWorld(t, func(w *world) {
		t := w.t
		w.create(newPod("a", nil))
		if err := w.api.CoreV1().Pods("default").Delete(t.Context(), "a", metav1.DeleteOptions{}); err != nil {
			t.Fatal(err)
		}
		w.wait(3 * time.Second)
		w.nothingLeft()
	})
}

func TestDeletionWhileWaiting(t *testing.T) {
	inWorld(t, func(w *world) {
		w.create(newPod("a", func(p *corev1.Pod) { p.Spec.Containers[0].Image = "nowhere:1" }))
		w.deletePod("a", 30)
		w.wait(time.Millisecond)
		w.want("a", "gone")
		w.nothingLeft()
	})
}

// The agent is replaced, the containers stay.
func TestAdoption(t *testing.T) {
	inWorld(t, func(w *world) {
		t := w.t
		w.create(newPod("a", nil))
		w.create(newPod("b", func(p *corev1.Pod) { p.Spec.RestartPolicy = corev1.RestartPolicyNever }))
		w.create(newPod("c", nil))
		before := w.running("a", "c")
		calls := len(w.podman.Calls())
		w.stop()
		w.podman.End(w.running("b", "c"), 4)
		if err := w.api.CoreV1().Pods("default").Delete(t.Context(), "c", metav1.DeleteOptions{}); err != nil {
			t.Fatal(err)
		}
		w.start()
		w.wait(12 * time.Second)
		if after := w.running("a", "c"); after != before || after == "" {
			t.Errorf("container %s became %s", before, after)
		}
		w.want("a", "Running c=running+")
		w.want("b", "Failed c=Error(4)")
		if w.running("c", "c") != "" {
			t.Error("a container of a pod that is gone still runs")
		}
		for _, c := range w.podman.Calls()[calls:] {
			if strings.HasPrefix(c, "Create ") || strings.HasPrefix(c, "Start ") {
				t.Errorf("adoption made a call: %s", c)
			}
		}
	})
}

// A container that was restarted before the agent was is probed on.
func TestAdoptionAfterRestart(t *testing.T) {
	inWorld(t, func(w *world) {
		var code atomic.Int32 // of the probe
		w.podman.OnExec = func(context.Context, string, podman.ExecConfig) (int, error) { return int(code.Load()), nil }
		w.create(newPod("a", func(p *corev1.Pod) {
			p.Spec.Containers[0].ReadinessProbe = &corev1.Probe{
				ProbeHandler:  corev1.ProbeHandler{Exec: &corev1.ExecAction{Command: []string{"x"}}},
				PeriodSeconds: 1, FailureThreshold: 1, SuccessThreshold: 1, TimeoutSeconds: 1,
			}
		}))
		w.wait(2 * time.Second)
		w.podman.End(w.running("a", "c"), 1)
		w.wait(2 * time.Second)
		w.want("a", "Running c=running<Error(1)x1+")
		w.stop()
		w.start()
		w.want("a", "Running c=running<Error(1)x1+")
		code.Store(1)
		w.wait(3 * time.Second)
		w.want("a", "Running c=running<Error(1)x1")
	})
}

// Two nodes of one name run on one machine: each leaves the other's pods alone.
func TestNeighbour(t *testing.T) {
	inWorld(t, func(w *world) {
		t := w.t
		w.create(newPod("a", nil))
		before := w.running("a", "c")
		w.stop()
		if err := w.api.CoreV1().Pods("default").Delete(t.Context(), "a", metav1.DeleteOptions{}); err != nil {
			t.Fatal(err)
		}
		dir, run := w.dir, w.run
		w.dir, w.run = t.TempDir(), t.TempDir()
		w.start()
		w.wait(time.Minute)
		if after := w.running("a", "c"); after != before || after == "" {
			t.Errorf("the neighbour's container %s became %q", before, after)
		}
		w.stop()
		w.dir, w.run = dir, run
		w.start()
		w.wait(time.Minute)
		w.nothingLeft()
	})
}

// A power failure: nothing of what was cut off counts as success.
func TestReboot(t *testing.T) {
	inWorld(t, func(w *world) {
		t := w.t
		w.create(newPod("always", nil))
		w.create(newPod("never", func(p *corev1.Pod) { p.Spec.RestartPolicy = corev1.RestartPolicyNever }))
		w.create(newPod("onfailure", func(p *corev1.Pod) { p.Spec.RestartPolicy = corev1.RestartPolicyOnFailure }))
		w.want("never", "Running c=running+")
		w.stop()
		w.podman.Reboot()
		w.net.ids = map[string]netip.Addr{}
		w.run = t.TempDir()
		w.start()
		w.wait(time.Second)
		w.want("always", "Running c=running<NodeReboot(255)x1+")
		w.want("onfailure", "Running c=running<NodeReboot(255)x1+")
		w.want("never", "Failed c=NodeReboot(255)")
	})
}

// Podman goes and comes back: the node says so, the pods are left alone.
func TestPodmanAway(t *testing.T) {
	inWorld(t, func(w *world) {
		t := w.t
		w.create(newPod("a", nil))
		before := w.running("a", "c")
		w.podman.SetDown(true)
		w.create(newPod("b", nil))
		w.wait(2 * time.Second)
		if r := w.nodeReady(); r != "False PodmanNotReachable" {
			t.Errorf("node ready is %s", r)
		}
		w.want("a", "Running c=running+")
		w.podman.SetDown(false)
		w.wait(15 * time.Second)
		if r := w.nodeReady(); r != "True KubeletReady" {
			t.Errorf("node ready is %s", r)
		}
		w.want("a", "Running c=running+")
		w.want("b", "Running c=running+")
		if after := w.running("a", "c"); after != before {
			t.Error("the pod was touched")
		}
	})
}

func TestDeadline(t *testing.T) {
	inWorld(t, func(w *world) {
		t := w.t
		five := int64(5)
		w.create(newPod("a", func(p *corev1.Pod) { p.Spec.ActiveDeadlineSeconds = &five }))
		w.wait(4 * time.Second)
		w.want("a", "Running c=running+")
		w.wait(3 * time.Second)
		p := w.get("a")
		if p.Status.Phase != corev1.PodFailed || p.Status.Reason != "DeadlineExceeded" {
			t.Errorf("%s %s", p.Status.Phase, p.Status.Reason)
		}
	})
}

func TestProbes(t *testing.T) {
	inWorld(t, func(w *world) {
		t := w.t
		code := 1
		w.podman.OnExec = func(_ context.Context, _ string, _ podman.ExecConfig) (int, error) { return code, nil }
		exec := corev1.ProbeHandler{Exec: &corev1.ExecAction{Command: []string{"x"}}}
		probe := corev1.Probe{ProbeHandler: exec, PeriodSeconds: 1, FailureThreshold: 3, SuccessThreshold: 1, TimeoutSeconds: 1}
		w.create(newPod("ready", func(p *corev1.Pod) { p.Spec.Containers[0].ReadinessProbe = &probe }))
		w.create(newPod("live", func(p *corev1.Pod) { p.Spec.Containers[0].LivenessProbe = &probe }))
		w.wait(1500 * time.Millisecond)
		w.want("ready", "Running c=running")
		w.want("live", "Running c=running+")
		first := w.running("live", "c")
		w.wait(6 * time.Second)
		if w.running("live", "c") == first {
			t.Error("a container that fails its liveness probe lives on")
		}
		code = 0
		w.wait(2 * time.Second)
		w.want("ready", "Running c=running+")
		if !slices.Contains(w.events("live"), "Unhealthy") || !slices.Contains(w.events("live"), "Killing") {
			t.Error(w.events("live"))
		}
	})
}

func TestHooks(t *testing.T) {
	inWorld(t, func(w *world) {
		t := w.t
		var ran []string
		w.podman.OnExec = func(_ context.Context, _ string, cfg podman.ExecConfig) (int, error) {
			ran = append(ran, cfg.Cmd[0])
			if cfg.Cmd[0] == "fail" {
				return 1, nil
			}
			return 0, nil
		}
		hook := func(cmd string) *corev1.LifecycleHandler {
			return &corev1.LifecycleHandler{Exec: &corev1.ExecAction{Command: []string{cmd}}}
		}
		w.create(newPod("a", func(p *corev1.Pod) {
			p.Spec.Containers[0].Lifecycle = &corev1.Lifecycle{PostStart: hook("post"), PreStop: hook("pre")}
		}))
		w.want("a", "Running c=running+")
		w.deletePod("a", 30)
		w.wait(time.Second)
		if got := strings.Join(ran, " "); got != "post pre" {
			t.Errorf("hooks %s", got)
		}
		w.create(newPod("b", func(p *corev1.Pod) {
			p.Spec.Containers[0].Lifecycle = &corev1.Lifecycle{PostStart: hook("fail")}
		}))
		w.wait(time.Minute)
		if !slices.Contains(w.events("b"), "FailedPostStartHook") {
			t.Error(w.events("b"))
		}
	})
}

func TestManyCycles(t *testing.T) {
	inWorld(t, func(w *world) {
		for range 10 {
			for _, n := range []string{"a", "b", "c"} {
				w.create(newPod(n, nil))
			}
			w.wait(time.Second)
			for _, n := range []string{"a", "b", "c"} {
				w.want(n, "Running c=running+")
				w.deletePod(n, 30)
			}
			w.wait(3 * time.Second)
			w.nothingLeft()
		}
	})
}

func TestUnsupportedPod(t *testing.T) {
	inWorld(t, func(w *world) {
		t := w.t
		always := corev1.ContainerRestartPolicyAlways
		w.create(newPod("a", func(p *corev1.Pod) {
			p.Spec.InitContainers = []corev1.Container{{Name: "s", Image: "app:1", RestartPolicy: &always}}
		}))
		w.wait(time.Second)
		w.want("a", "Pending s=PodInitializing c=NotSupported")
		if !slices.Contains(w.events("a"), "NotSupported") {
			t.Error(w.events("a"))
		}
		w.deletePod("a", 30)
		w.wait(time.Second)
		w.want("a", "gone")
	})
}

func (w *world) nodeReady() string {
	w.t.Helper()
	n, err := w.api.CoreV1().Nodes().Get(w.t.Context(), nodeName, metav1.GetOptions{})
	if err != nil {
		return err.Error()
	}
	for _, c := range n.Status.Conditions {
		if c.Type == corev1.NodeReady {
			return string(c.Status) + " " + c.Reason
		}
	}
	return "none"
}

// What others write into the status is not taken back by a worker that has not heard of it yet.
func TestForeignConditions(t *testing.T) {
	inWorld(t, func(w *world) {
		t := w.t
		const gate = "example.com/gate"
		w.create(newPod("a", func(p *corev1.Pod) {
			p.Spec.ReadinessGates = []corev1.PodReadinessGate{{ConditionType: gate}}
		}))
		ready := func() (string, bool) {
			status, foreign := "", false
			for _, c := range w.get("a").Status.Conditions {
				if c.Type == corev1.PodReady {
					status = string(c.Status)
				}
				foreign = foreign || c.Type == gate
			}
			return status, foreign
		}
		if status, _ := ready(); status != "False" {
			t.Errorf("ready is %s with its gate closed", status)
		}
		w.change("a", func(p *corev1.Pod) {
			p.Status.Conditions = append(p.Status.Conditions, corev1.PodCondition{Type: gate, Status: corev1.ConditionTrue})
		})
		w.podman.End(w.running("a", "c"), 1)
		w.wait(time.Second)
		if status, foreign := ready(); status != "True" || !foreign {
			t.Errorf("ready is %s, the gate's condition is there: %v", status, foreign)
		}
	})
}
