//go:build e2e

package e2e

import (
	"fmt"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
)

// TestPodNames covers what a container reads of names: hosts, resolv.conf, host name.
func TestPodNames(t *testing.T) {
	t.Parallel()
	ns := namespace(t)
	p := "restartPolicy: Never\nhostAliases: [{ip: 192.0.2.7, hostnames: [alias.test]}]\n%s\ncontainers: [{name: c, image: 'localhost/busybox:1', command: [sh, -c, 'hostname; cat /etc/hosts; cat /etc/resolv.conf']}]"
	pod(t, ns, "plain", fmt.Sprintf(p, "hostname: me\nsubdomain: sub"))
	pod(t, ns, "own", fmt.Sprintf(p, "dnsPolicy: None\ndnsConfig: {nameservers: [192.0.2.53], searches: [a.test, b.test], options: [{name: ndots, value: '3'}]}"))
	plain := await(t, ns, "plain", 30*time.Second, phase(corev1.PodSucceeded))
	await(t, ns, "own", 30*time.Second, phase(corev1.PodSucceeded))
	out := logs(t, ns, "plain")
	contains(t, "names", out, "me\n# Kubernetes-managed hosts file.\n127.0.0.1\tlocalhost\n",
		plain.Status.PodIP+"\tme.sub."+ns+".svc.cluster.local\tme\n", "192.0.2.7\talias.test\n",
		"search "+ns+".svc.cluster.local svc.cluster.local cluster.local\n", "nameserver ")
	if n := strings.Count(out, "localhost\n"); n != 1 {
		t.Errorf("%d lines for localhost: the hosts file was not only ours:\n%s", n, out)
	}
	out = logs(t, ns, "own")
	contains(t, "own DNS", out, "own\n# Kubernetes-managed", "search a.test b.test\nnameserver 192.0.2.53\noptions ndots:3\n")
	if strings.Contains(out, "cluster.local") {
		t.Errorf("dnsPolicy None, but the cluster's names are searched:\n%s", out)
	}
}

// TestPodUnprivileged: an ordinary user without capabilities may ping and listen below 1024, in every
// container, also in one that was started again.
func TestPodUnprivileged(t *testing.T) {
	t.Parallel()
	ns := namespace(t)
	pod(t, ns, "user", `
securityContext: {runAsUser: 1000, runAsGroup: 1000}
containers:
- name: c
  image: localhost/busybox:1
  command: [sh, -c, "httpd -p 80 -h /tmp; while [ ! -e /tmp/stop ]; do sleep 0.1; done; exit 1"]
  securityContext: {capabilities: {drop: [ALL]}, allowPrivilegeEscalation: false}
- {name: other, image: 'localhost/pause:1'}
`)
	for restarts := range int32(2) {
		await(t, ns, "user", 30*time.Second, func(p *corev1.Pod) bool {
			return ready(p) && p.Status.ContainerStatuses[0].RestartCount == restarts
		})
		sh := func(cmd string) string {
			t.Helper()
			return psctl(t, "-n", ns, "exec", "user", "-c", "c", "--", "sh", "-c", "{ "+cmd+"\n} 2>&1 || true")
		}
		// busybox's own ping wants a capability all the same
		contains(t, "ping", sh("awk '$1 == 0 && $2 >= 1000 {print \"allowed\"}' /proc/sys/net/ipv4/ping_group_range"), "allowed")
		contains(t, "port 80", sh("echo hello >/tmp/index.html; for i in $(seq 50); do wget -q -O - http://127.0.0.1:80/index.html && break; sleep 0.2; done"), "hello")
		sh(soon)
	}
}

// soon ends a container that waits for the file, a moment later: the command that asks for it must
// have ended first, or it is killed with the container.
const soon = "(sleep 1; touch /tmp/stop) >/dev/null 2>&1 </dev/null &"

// TestPodSharedMemory: the containers of a pod share IPC namespace and /dev/shm, pods do not, and a
// container that was started again shares them still.
func TestPodSharedMemory(t *testing.T) {
	t.Parallel()
	ns := namespace(t)
	const loop = "; while [ ! -e /tmp/stop ]; do sleep 0.1; done; exit 1"
	two := fmt.Sprintf("containers:\n- {name: a, image: 'localhost/busybox:1', command: [sh, -c, %q]}\n- {name: b, image: 'localhost/busybox:1', command: [sh, -c, %q]}\n",
		": loop-of-a"+loop, ": loop-of-b"+loop)
	pod(t, ns, "one", two)
	pod(t, ns, "two", "shareProcessNamespace: true\n"+two)
	await(t, ns, "one", 30*time.Second, ready)
	await(t, ns, "two", 30*time.Second, ready)
	sh := func(name, container, cmd string) string {
		t.Helper()
		return strings.TrimSpace(psctl(t, "-n", ns, "exec", name, "-c", container, "--", "sh", "-c", cmd))
	}
	const ipc = "readlink /proc/self/ns/ipc"
	same := func(when string) {
		t.Helper()
		if a, b, other := sh("one", "a", ipc), sh("one", "b", ipc), sh("two", "a", ipc); a != b || a == other {
			t.Errorf("IPC namespaces %s: %s and %s in one pod, %s in another", when, a, b, other)
		}
		sh("one", "a", "echo "+when+" >/dev/shm/note")
		if got := sh("one", "b", "cat /dev/shm/note"); got != when {
			t.Errorf("/dev/shm of the other container has %q %s", got, when)
		}
		if got := sh("two", "a", "ls /dev/shm"); got != "" {
			t.Errorf("/dev/shm of another pod has %q", got)
		}
	}
	same("at-first")
	sh("one", "a", soon)
	await(t, ns, "one", 30*time.Second, func(p *corev1.Pod) bool { return ready(p) && p.Status.ContainerStatuses[0].RestartCount == 1 })
	same("after-a-restart")
	// Which, not how many: a loop that is just starting its sleep is there twice.
	if got := sh("two", "a", "ps | grep -o 'loop-of-[ab]' | sort -u | tr '\\n' ' '"); got != "loop-of-a loop-of-b" {
		t.Errorf("with a shared process namespace a container sees the processes %q", got)
	}
}
