package podspec_test

import (
	"bytes"
	"context"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/podman-swarm/podman-swarm/internal/podman"
	"github.com/podman-swarm/podman-swarm/internal/podspec"
)

// What a real Podman makes of our specifications; on the machine whose socket it is.
const socketVar = "PSWARM_TEST_PODMAN_SOCKET"

type bench struct {
	c    *podman.Client
	img  podman.Image
	host podspec.Facts
}

func newBench(t *testing.T) bench {
	t.Helper()
	sock := os.Getenv(socketVar)
	if sock == "" {
		t.Skip(socketVar + " names no libpod socket")
	}
	log := slog.New(slog.NewTextHandler(t.Output(), &slog.HandlerOptions{Level: slog.LevelDebug})) // every call with its time
	b := bench{c: podman.New(podman.Config{Socket: sock, Log: log})}
	info, err := b.c.Info(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	b.host = podspec.Facts{Podman: info, Node: "n1", DataDir: "/contract", BootID: "b1"}
	if b.img, err = b.c.Image(t.Context(), "busybox:1"); err != nil {
		t.Fatal(err)
	}
	return b
}

func newPod(t *testing.T) *corev1.Pod {
	t.Helper()
	uid := types.UID(fmt.Sprint(time.Now().UnixNano()))
	return &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Namespace: "ns", Name: strings.ToLower(t.Name()), UID: uid}}
}

// pod makes the Podman pod.
func (b bench) pod(t *testing.T, pod *corev1.Pod) string {
	t.Helper()
	id, err := b.c.CreatePod(t.Context(), podspec.Pod(pod, b.host))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := b.c.RemovePod(context.WithoutCancel(t.Context()), id); err != nil {
			t.Error(err)
		}
	})
	return id
}

func (b bench) netns(t *testing.T) string {
	t.Helper()
	id, err := b.c.Create(t.Context(), podman.ContainerSpec{
		Name: fmt.Sprintf("ns-%d", time.Now().UnixNano()), Image: b.img.ID, Entrypoint: []string{"sleep", "1000"},
		NetNS: podman.Namespace{Mode: "none"}, RestartPolicy: "no",
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := b.c.Remove(context.WithoutCancel(t.Context()), id, true); err != nil {
			t.Error(err)
		}
	})
	if err := b.c.Start(t.Context(), id); err != nil {
		t.Fatal(err)
	}
	ctr, err := b.c.Inspect(t.Context(), id)
	if err != nil {
		t.Fatal(err)
	}
	return fmt.Sprintf("/proc/%d/ns/net", ctr.Pid)
}

func (b bench) start(t *testing.T, in podspec.Input) podman.Container {
	t.Helper()
	in.Image, in.Host = b.img, b.host
	if in.LogPath == "" {
		in.LogPath = filepath.Join(t.TempDir(), "log")
	}
	spec, _, err := podspec.Container(in)
	if err != nil {
		t.Fatal(err)
	}
	id, err := b.c.Create(t.Context(), spec)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := b.c.Remove(context.WithoutCancel(t.Context()), id, true); err != nil {
			t.Error(err)
		}
	})
	if err := b.c.Start(t.Context(), id); err != nil {
		t.Fatal(err)
	}
	ctr, err := b.c.Inspect(t.Context(), id)
	if err != nil {
		t.Fatal(err)
	}
	return ctr
}

func (b bench) sh(t *testing.T, id, script string) string {
	t.Helper()
	var out bytes.Buffer
	_, err := b.c.Exec(t.Context(), id, podman.ExecConfig{Cmd: []string{"sh", "-c", script}, Stdout: &out, Stderr: &out})
	if err != nil {
		t.Fatal(err)
	}
	return strings.TrimSpace(out.String())
}

func file(t *testing.T, name, text string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), name)
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	// Containers run as other users than this test.
	if err := os.Chmod(path, 0o666); err != nil {
		t.Fatal(err)
	}
	return path
}

func expect(t *testing.T, what, got, want string) {
	t.Helper()
	if got != want {
		t.Errorf("%s: %q, want %q", what, got, want)
	}
}

func TestContractContainer(t *testing.T) {
	b := newBench(t)
	pod := newPod(t)
	pod.Spec.SecurityContext = &corev1.PodSecurityContext{
		RunAsUser: new(int64(1000)), RunAsGroup: new(int64(2000)), FSGroup: new(int64(3000)),
		SupplementalGroups: []int64{4000}, RunAsNonRoot: new(true),
		Sysctls: []corev1.Sysctl{{Name: "net.ipv4.ip_unprivileged_port_start", Value: "0"}, {Name: "kernel.msgmax", Value: "9000"}},
	}
	hosts, resolv, term := file(t, "hosts", "10.9.9.9 swarm\n"), file(t, "resolv", "nameserver 10.43.0.10\n"), file(t, "term", "")
	c := corev1.Container{
		Name: "c", Image: "busybox:1", Command: []string{"sleep"}, Args: []string{"$(SECONDS_)"}, WorkingDir: "/made/up",
		SecurityContext: &corev1.SecurityContext{
			ReadOnlyRootFilesystem: new(true), AllowPrivilegeEscalation: new(false),
			Capabilities: &corev1.Capabilities{Drop: []corev1.Capability{"ALL"}, Add: []corev1.Capability{"NET_BIND_SERVICE"}},
		},
		Resources: corev1.ResourceRequirements{Limits: corev1.ResourceList{
			corev1.ResourceMemory: resource.MustParse("32Mi"), corev1.ResourceCPU: resource.MustParse("500m"),
		}},
	}
	pod.Spec.Containers = []corev1.Container{c} // guaranteed
	in := podspec.Input{
		Pod: pod, Container: &c, Env: []string{"A=b=c", "SECONDS_=1000"}, PodID: b.pod(t, pod), NetNS: b.netns(t),
		Hostname: "web-0", Hosts: hosts, ResolvConf: resolv, TerminationLog: term,
		Mounts: []podspec.Mount{{HostPath: filepath.Dir(hosts), ContainerPath: "/ro", ReadOnly: true}},
	}
	ctr := b.start(t, in)
	expect(t, "ids", b.sh(t, ctr.ID, "id -u; id -g; id -G"), "1000\n2000\n2000 3000 4000")
	expect(t, "env", b.sh(t, ctr.ID, "echo $A; hostname; pwd"), "b=c\nweb-0\n/made/up")
	expect(t, "hosts", b.sh(t, ctr.ID, "cat /etc/hosts /etc/resolv.conf"), "10.9.9.9 swarm\nnameserver 10.43.0.10")
	expect(t, "command", b.sh(t, ctr.ID, "tr '\\0' ' ' </proc/1/cmdline"), "sleep 1000")
	for _, p := range []string{"/x", "/tmp/x", "/run/x", "/var/tmp/x", "/ro/x", "/made/up/x"} {
		if got := b.sh(t, ctr.ID, "touch "+p+" && echo written"); strings.Contains(got, "written") {
			t.Errorf("%s is writable", p)
		}
	}
	expect(t, "shm", b.sh(t, ctr.ID, "echo a >/dev/shm/x && cat /dev/shm/x"), "a")
	expect(t, "sysctl", b.sh(t, ctr.ID, "cat /proc/sys/net/ipv4/ip_unprivileged_port_start /proc/sys/kernel/msgmax"), "0\n9000")
	expect(t, "privileges", b.sh(t, ctr.ID, "grep NoNewPrivs /proc/self/status; grep Seccomp: /proc/self/status"), "NoNewPrivs:\t1\nSeccomp:\t2")
	expect(t, "bounding set", b.sh(t, ctr.ID, "grep CapBnd /proc/1/status"), "CapBnd:\t0000000000000400")
	b.sh(t, ctr.ID, "echo over >/dev/termination-log")
	if got, err := os.ReadFile(term); err != nil || string(got) != "over\n" {
		t.Errorf("termination message %q, %v", got, err)
	}
	if !b.host.Podman.Rootless {
		expect(t, "limits", b.sh(t, ctr.ID, "cd /sys/fs/cgroup; cat memory/memory.limit_in_bytes cpu/cpu.cfs_quota_us cpu/cpu.shares 2>/dev/null || cat memory.max cpu.max"),
			"33554432\n50000\n512")
	}
	expect(t, "oom score", b.sh(t, ctr.ID, "cat /proc/1/oom_score_adj"), fmt.Sprint(max(-997, b.host.Podman.MinOOMScoreAdj)))
}

// Two containers of a pod share System V IPC and /dev/shm, and the first can be removed before the second.
func TestContractSharedIPC(t *testing.T) {
	b := newBench(t)
	pod := newPod(t)
	podID, ns := b.pod(t, pod), b.netns(t)
	sleep := func(name string) *corev1.Container {
		return &corev1.Container{Name: name, Command: []string{"sleep", "1000"}}
	}
	dir := sharedMemory(t)
	ipc := podspec.IPC{ShmDir: dir}
	one := b.start(t, podspec.Input{Pod: pod, Container: sleep("one"), PodID: podID, NetNS: ns, Hostname: "h", IPC: ipc})
	ipc.Pid = one.Pid
	two := b.start(t, podspec.Input{Pod: pod, Container: sleep("two"), PodID: podID, NetNS: ns, Hostname: "h", IPC: ipc})
	look := "readlink /proc/self/ns/ipc; readlink /proc/self/ns/net"
	expect(t, "namespaces", b.sh(t, two.ID, look), b.sh(t, one.ID, look))
	b.sh(t, one.ID, "echo shared >/dev/shm/x")
	expect(t, "shm", b.sh(t, two.ID, "cat /dev/shm/x"), "shared")
	if err := b.c.Remove(t.Context(), one.ID, true); err != nil {
		t.Errorf("remove the first: %v", err)
	}
	expect(t, "shm afterwards", b.sh(t, two.ID, "cat /dev/shm/x"), "shared")
	ipc.Pid = two.Pid
	third := b.start(t, podspec.Input{Pod: pod, Container: sleep("one"), Attempt: 1, PodID: podID, NetNS: ns, Hostname: "h", IPC: ipc})
	expect(t, "shm of a third", b.sh(t, third.ID, "cat /dev/shm/x"), "shared")
	expect(t, "namespaces of a third", b.sh(t, third.ID, look), b.sh(t, two.ID, look))
}

// sharedMemory is a directory on the host's own /dev/shm.
func sharedMemory(t *testing.T) string {
	t.Helper()
	dir, err := os.MkdirTemp("/dev/shm", "podspec-test-") //nolint:usetesting // must be on a tmpfs
	if err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(dir, os.ModeSticky|0o777); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	return dir
}

func TestContractShareProcessNamespace(t *testing.T) {
	b := newBench(t)
	pod := newPod(t)
	pod.Spec.ShareProcessNamespace = new(true)
	podID, ns := b.pod(t, pod), b.netns(t)
	one := b.start(t, podspec.Input{
		Pod: pod, Container: &corev1.Container{Name: "one", Command: []string{"sleep", "1111"}}, PodID: podID, NetNS: ns, Hostname: "h",
	})
	two := b.start(t, podspec.Input{
		Pod: pod, Container: &corev1.Container{Name: "two", Command: []string{"sleep", "2222"}}, PodID: podID, NetNS: ns, Hostname: "h",
	})
	if ps := b.sh(t, two.ID, "ps"); !strings.Contains(ps, "1111") || !strings.Contains(ps, "2222") {
		t.Errorf("processes\n%s", ps)
	}
	if err := b.c.Kill(t.Context(), one.ID, "SIGKILL"); err != nil {
		t.Error(err)
	}
	if ps := b.sh(t, two.ID, "ps"); !strings.Contains(ps, "2222") {
		t.Errorf("processes\n%s", ps)
	}
}

func TestContractHostNamespaces(t *testing.T) {
	b := newBench(t)
	if _, err := os.Stat("/dev/mqueue"); err != nil && b.host.Podman.Rootless {
		t.Skip("this machine has no /dev/mqueue, which a rootless Podman wants to give to the container")
	}
	pod := newPod(t)
	pod.Spec.HostNetwork, pod.Spec.HostPID, pod.Spec.HostIPC = true, true, true
	ctr := b.start(t, podspec.Input{
		Pod: pod, Container: &corev1.Container{Name: "c", Command: []string{"sleep", "1000"}}, PodID: b.pod(t, pod), Hostname: "thenode",
	})
	got := b.sh(t, ctr.ID, "hostname; for n in net pid ipc; do readlink /proc/self/ns/$n; done")
	want := "thenode"
	for _, n := range []string{"net", "pid", "ipc"} {
		l, err := os.Readlink("/proc/self/ns/" + n)
		if err != nil {
			t.Fatal(err)
		}
		want += "\n" + l
	}
	expect(t, "namespaces", got, want)
}

func TestContractPrivileged(t *testing.T) {
	b := newBench(t)
	pod := newPod(t)
	c := &corev1.Container{Name: "c", Command: []string{"sleep", "1000"}, SecurityContext: &corev1.SecurityContext{Privileged: new(true)}}
	ctr := b.start(t, podspec.Input{Pod: pod, Container: c, PodID: b.pod(t, pod), NetNS: b.netns(t), Hostname: "h"})
	expect(t, "seccomp", b.sh(t, ctr.ID, "grep Seccomp: /proc/self/status"), "Seccomp:\t0")
	if got := b.sh(t, ctr.ID, "mount -t tmpfs t /tmp && echo mounted"); got != "mounted" {
		t.Errorf("mount: %q", got)
	}
}
