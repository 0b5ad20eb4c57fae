//go:build e2e

package e2e

import (
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"
	"sigs.k8s.io/yaml"

	"github.com/podman-swarm/podman-swarm/test/lab"
)

// clientset is one for all tests: each has connections of its own, which the agent would be blamed for.
var clientset = sync.OnceValues(func() (*kubernetes.Clientset, error) { return machine.Clientset() })

func client(t *testing.T) *kubernetes.Clientset {
	t.Helper()
	c, err := clientset()
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// pod creates a pod named p from the YAML of its spec.
func pod(t *testing.T, ns, name, spec string) *corev1.Pod {
	t.Helper()
	p := &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Name: name, Labels: map[string]string{"app": name}, Annotations: map[string]string{"note": "hi"}}}
	if err := yaml.UnmarshalStrict([]byte(spec), &p.Spec); err != nil {
		t.Fatal(err)
	}
	if p.Spec.TerminationGracePeriodSeconds == nil {
		p.Spec.TerminationGracePeriodSeconds = new(int64)
		*p.Spec.TerminationGracePeriodSeconds = 1
	}
	created, err := client(t).CoreV1().Pods(ns).Create(t.Context(), p, metav1.CreateOptions{})
	if err != nil {
		t.Fatal(err)
	}
	return created
}

// await waits until the pod's status satisfies ok and returns it.
func await(t *testing.T, ns, name string, within time.Duration, ok func(*corev1.Pod) bool) *corev1.Pod {
	t.Helper()
	var p *corev1.Pod
	c := client(t)
	deadline := time.Now().Add(within)
	for {
		var err error
		if p, err = c.CoreV1().Pods(ns).Get(t.Context(), name, metav1.GetOptions{}); err == nil && ok(p) {
			return p
		}
		if time.Now().After(deadline) {
			status, _ := yaml.Marshal(p.Status)
			t.Fatalf("pod %s not as wanted within %s (%v):\n%s", name, within, err, status)
		}
		time.Sleep(50 * time.Millisecond)
	}
}

func ready(p *corev1.Pod) bool {
	for _, c := range p.Status.Conditions {
		if c.Type == corev1.PodReady {
			return c.Status == corev1.ConditionTrue
		}
	}
	return false
}

func phase(want corev1.PodPhase) func(*corev1.Pod) bool {
	return func(p *corev1.Pod) bool { return p.Status.Phase == want }
}

func waiting(reason string) func(*corev1.Pod) bool {
	return func(p *corev1.Pod) bool {
		for _, s := range append(p.Status.InitContainerStatuses, p.Status.ContainerStatuses...) {
			if s.State.Waiting != nil && s.State.Waiting.Reason == reason {
				return true
			}
		}
		return false
	}
}

func logs(t *testing.T, ns, name string) string {
	t.Helper()
	return psctl(t, "-n", ns, "logs", name)
}

// script is a pod that runs a shell script to its end.
func script(sh, extra string) string {
	return "restartPolicy: Never\n" + extra + "\ncontainers:\n- name: c\n  image: localhost/busybox:1\n  command: [sh, -c, " + fmt.Sprintf("%q", sh) + "]\n"
}

func TestPodEnvironment(t *testing.T) {
	t.Parallel()
	ns := namespace(t)
	psctl(t, "-n", ns, "create", "configmap", "cm", "--from-literal=color=blue", "--from-literal=size=9")
	psctl(t, "-n", ns, "create", "secret", "generic", "sec", "--from-literal=word=hush")
	pod(t, ns, "env", script("echo $A $B $(C) $D $E $F color=$color P_size=$P_size $1 $0; pwd; id -u", "")+`
  args: [zero, one]
  workingDir: /tmp
  env:
  - {name: A, value: a}
  - {name: B, value: "b-$(A)"}
  - {name: D, valueFrom: {configMapKeyRef: {name: cm, key: color}}}
  - {name: E, valueFrom: {secretKeyRef: {name: sec, key: word}}}
  - {name: F, valueFrom: {fieldRef: {fieldPath: metadata.name}}}
  envFrom:
  - configMapRef: {name: cm}
  - {prefix: P_, configMapRef: {name: cm}}
`)
	await(t, ns, "env", 30*time.Second, phase(corev1.PodSucceeded))
	want := "a b-a"
	if got := logs(t, ns, "env"); !strings.Contains(got, want) || !strings.Contains(got, "blue hush env color=blue P_size=9 one zero\n/tmp\n0") {
		t.Errorf("logs = %q", got)
	}
	pod(t, ns, "noconfig", "containers: [{name: c, image: 'localhost/busybox:1', env: [{name: A, valueFrom: {configMapKeyRef: {name: nosuch, key: k}}}]}]")
	p := await(t, ns, "noconfig", 20*time.Second, waiting("CreateContainerConfigError"))
	contains(t, "message", p.Status.ContainerStatuses[0].State.Waiting.Message, `configmap "nosuch" not found`)
}

func TestPodVolumes(t *testing.T) {
	t.Parallel()
	ns := namespace(t)
	psctl(t, "-n", ns, "create", "configmap", "cm", "--from-literal=key=one")
	psctl(t, "-n", ns, "create", "secret", "generic", "sec", "--from-literal=word=hush")
	pod(t, ns, "vols", `
securityContext: {fsGroup: 2000, runAsUser: 1000}
initContainers:
- {name: init, image: 'localhost/busybox:1', command: [sh, -c, "echo from-init >/shared/file"], volumeMounts: [{name: shared, mountPath: /shared}]}
containers:
- name: c
  image: localhost/busybox:1
  command: [sh, -c, "trap 'exit 0' TERM; while :; do sleep 0.2; done"]
  volumeMounts:
  - {name: shared, mountPath: /shared}
  - {name: mem, mountPath: /mem}
  - {name: cm, mountPath: /cm}
  - {name: sec, mountPath: /sec, readOnly: true}
  - {name: all, mountPath: /all}
  - {name: cm, mountPath: /one/key, subPath: key}
  - {name: host, mountPath: /hostetc}
volumes:
- {name: shared, emptyDir: {}}
- {name: mem, emptyDir: {medium: Memory}}
- {name: cm, configMap: {name: cm}}
- {name: sec, secret: {secretName: sec, defaultMode: 0440}}
- {name: host, hostPath: {path: /etc, type: Directory}}
- name: all
  projected:
    sources:
    - serviceAccountToken: {path: token, expirationSeconds: 600}
    - downwardAPI: {items: [{path: name, fieldRef: {fieldPath: metadata.name}}, {path: notes, fieldRef: {fieldPath: "metadata.annotations['note']"}}]}
    - configMap: {name: cm, items: [{key: key, path: deep/er}]}
`)
	await(t, ns, "vols", 30*time.Second, ready)
	sh := func(cmd string) string {
		t.Helper()
		return strings.TrimSpace(psctl(t, "-n", ns, "exec", "vols", "-c", "c", "--", "sh", "-c", cmd))
	}
	for cmd, want := range map[string]string{
		"cat /shared/file": "from-init", "cat /cm/key": "one", "cat /sec/word": "hush", "cat /all/name": "vols",
		"cat /all/notes": "hi", "cat /all/deep/er": "one", "cat /one/key": "one", "id -u; id -G | tr ' ' '\\n' | grep 2000": "1000\n2000",
		"touch /sec/x 2>/dev/null || echo refused": "refused", "test -s /hostetc/hostname && echo there": "there",
		"echo x >/mem/x && awk '$2==\"/mem\"{print $3}' /proc/mounts": "tmpfs", "touch /shared/mine && echo ok": "ok",
		"cut -d. -f2 /all/token | wc -l": "1", "stat -c %g /shared": "2000",
	} {
		if got := sh(cmd); got != want {
			t.Errorf("%s = %q, want %q", cmd, got, want)
		}
	}
	psctl(t, "-n", ns, "patch", "configmap", "cm", "-p", `{"data":{"key":"two"}}`)
	eventually(t, 90*time.Second, func() error {
		if got := sh("cat /cm/key /all/deep/er"); got != "twotwo" {
			return fmt.Errorf("mounted ConfigMap = %q", got)
		}
		return nil
	})
	if got := sh("cat /one/key"); got != "one" {
		t.Errorf("a subPath mount changed to %q", got)
	}
}

func TestPodSecurityContext(t *testing.T) {
	t.Parallel()
	ns := namespace(t)
	pod(t, ns, "tight", script("id -u; id -g; grep -E 'CapEff|NoNewPrivs|^Seccomp:' /proc/self/status; touch /x 2>&1 || echo readonly", "")+`
  securityContext: {runAsUser: 1234, runAsGroup: 1234, runAsNonRoot: true, allowPrivilegeEscalation: false, readOnlyRootFilesystem: true, capabilities: {drop: [ALL]}, seccompProfile: {type: RuntimeDefault}}
`)
	await(t, ns, "tight", 30*time.Second, phase(corev1.PodSucceeded))
	contains(t, "status", logs(t, ns, "tight"), "1234\n1234\n", "CapEff:\t0000000000000000", "NoNewPrivs:\t1", "Seccomp:\t2", "readonly")
	pod(t, ns, "root", script("true", "")+"  securityContext: {runAsNonRoot: true}\n")
	p := await(t, ns, "root", 20*time.Second, waiting("CreateContainerConfigError"))
	contains(t, "message", p.Status.ContainerStatuses[0].State.Waiting.Message, "container has runAsNonRoot and image will run as root")
	pod(t, ns, "cap", script("grep CapEff /proc/self/status", "")+"  securityContext: {capabilities: {drop: [ALL], add: [NET_BIND_SERVICE]}}\n")
	await(t, ns, "cap", 20*time.Second, phase(corev1.PodSucceeded))
	contains(t, "capabilities", logs(t, ns, "cap"), "0000000000000400")
}

func TestPodProbesAndRestarts(t *testing.T) {
	t.Parallel()
	ns := namespace(t)
	pod(t, ns, "live", `
containers:
- name: c
  image: localhost/echo:1
  livenessProbe: {httpGet: {path: /healthz, port: 8080}, periodSeconds: 1, failureThreshold: 2}
  readinessProbe: {httpGet: {path: /readyz, port: 8080}, periodSeconds: 1}
  startupProbe: {tcpSocket: {port: 8080}, periodSeconds: 1, failureThreshold: 30}
  lifecycle: {preStop: {sleep: {seconds: 1}}}
`)
	await(t, ns, "live", 30*time.Second, ready)
	call := func(path string) {
		t.Helper()
		psctl(t, "get", "--raw", "/api/v1/namespaces/"+ns+"/pods/live:8080/proxy"+path)
	}
	call("/readyz/set?v=0")
	await(t, ns, "live", 10*time.Second, func(p *corev1.Pod) bool { return !ready(p) })
	call("/readyz/set?v=1")
	await(t, ns, "live", 10*time.Second, ready)
	call("/healthz/set?v=0")
	await(t, ns, "live", 30*time.Second, func(p *corev1.Pod) bool { return p.Status.ContainerStatuses[0].RestartCount == 1 && ready(p) })
	shows(t, "events", asking(t, "-n", ns, "get", "events"), "Liveness probe failed: HTTP probe failed with statuscode: 503", "failed liveness probe, will be restarted")

	pod(t, ns, "crash", "containers: [{name: c, image: 'localhost/busybox:1', command: [sh, -c, 'echo dying; exit 3']}]")
	p := await(t, ns, "crash", 40*time.Second, waiting("CrashLoopBackOff"))
	if last := p.Status.ContainerStatuses[0].LastTerminationState.Terminated; last == nil || last.ExitCode != 3 || last.Reason != "Error" {
		t.Errorf("last state = %+v", last)
	}
	contains(t, "logs --previous", psctl(t, "-n", ns, "logs", "crash", "--previous"), "dying")
	pod(t, ns, "noimage", "containers: [{name: c, image: 'localhost/nosuch:9'}]")
	await(t, ns, "noimage", 60*time.Second, waiting("ErrImagePull"))
	p = await(t, ns, "noimage", 60*time.Second, waiting("ImagePullBackOff"))
	contains(t, "message", p.Status.ContainerStatuses[0].State.Waiting.Message, "localhost/nosuch:9")
	pod(t, ns, "never", "containers: [{name: c, image: 'localhost/nosuch:9', imagePullPolicy: Never}]")
	await(t, ns, "never", 20*time.Second, waiting("ErrImageNeverPull"))
}

func TestPodHooksAndTermination(t *testing.T) {
	t.Parallel()
	ns := namespace(t)
	pod(t, ns, "hooks", `
terminationGracePeriodSeconds: 10
containers:
- name: c
  image: localhost/busybox:1
  command: [sh, -c, "trap 'echo got TERM; exit 0' TERM; while :; do sleep 0.1; done"]
  lifecycle:
    postStart: {exec: {command: [sh, -c, "echo post >/tmp/post"]}}
    preStop: {exec: {command: [sh, -c, "echo pre >/proc/1/fd/1"]}}
`)
	await(t, ns, "hooks", 30*time.Second, ready)
	contains(t, "postStart", psctl(t, "-n", ns, "exec", "hooks", "--", "cat", "/tmp/post"), "post")
	follow := make(chan string, 1)
	go func() {
		out, _, _ := machine.Psctl(background(), "", "-n", ns, "logs", "-f", "hooks")
		follow <- out
	}()
	time.Sleep(time.Second) // let the follower connect
	psctl(t, "-n", ns, "delete", "pod", "hooks", "--timeout=20s")
	if got := <-follow; got != "pre\ngot TERM\n" {
		t.Errorf("logs -f until the end = %q", got)
	}
	pod(t, ns, "stubborn", "terminationGracePeriodSeconds: 2\ncontainers: [{name: c, image: 'localhost/busybox:1', command: [sh, -c, \"trap '' TERM; while :; do sleep 1; done\"]}]")
	await(t, ns, "stubborn", 30*time.Second, ready)
	start := time.Now()
	psctl(t, "-n", ns, "delete", "pod", "stubborn", "--timeout=60s")
	if took := time.Since(start); took < 2*time.Second || took > 20*time.Second { // the default is 30 s
		t.Errorf("a pod that ignores SIGTERM with 2 s grace was gone after %s", took)
	}
}

func TestPodNetwork(t *testing.T) {
	t.Parallel()
	ns := namespace(t)
	for _, name := range []string{"a", "b"} {
		pod(t, ns, name, "containers: [{name: c, image: 'localhost/echo:1', ports: [{containerPort: 8080}]}]")
	}
	a, b := await(t, ns, "a", 30*time.Second, ready), await(t, ns, "b", 30*time.Second, ready)
	if !strings.HasPrefix(a.Status.PodIP, "10.244.") || a.Status.PodIP == b.Status.PodIP {
		t.Errorf("pod addresses %q and %q", a.Status.PodIP, b.Status.PodIP)
	}
	get := func(from, url string) func() (string, error) {
		return asking(t, "get", "--raw", "/api/v1/namespaces/"+ns+"/pods/"+from+":8080/proxy/get?url="+url)
	}
	shows(t, "pod to pod keeps its address", get("a", "http://"+b.Status.PodIP+":8080/"), `"host":"b"`, a.Status.PodIP)
	shows(t, "pod to itself", get("a", "http://"+a.Status.PodIP+":8080/"), `"host":"a"`)
	pod(t, ns, "hp", fmt.Sprintf("containers: [{name: c, image: 'localhost/echo:1', ports: [{containerPort: 8080, hostPort: %d}]}]", 28080))
	await(t, ns, "hp", 30*time.Second, ready)
	shows(t, "hostPort", func() (string, error) {
		out, errOut, err := machine.Run(t.Context(), "", "curl", "-fsS", "-m", "5", "http://127.0.0.1:28080/")
		return out, wrap(err, errOut)
	}, `"host":"hp"`)
	shows(t, "pod to the node's own address", get("a", "http://10.77.0."+machine.Index()+":28080/"), `"host":"hp"`)
	pod(t, ns, "hostnet", "hostNetwork: true\ncontainers: [{name: c, image: 'localhost/echo:1', env: [{name: PORT, value: '28081'}, {name: TCP_PORT, value: '28082'}, {name: UDP_PORT, value: '28083'}]}]")
	p := await(t, ns, "hostnet", 30*time.Second, ready)
	if p.Status.PodIP != "10.77.0."+machine.Index() {
		t.Errorf("hostNetwork pod has address %q", p.Status.PodIP)
	}
}

// TestPodWithoutNetworkTraffic starts a pod with a local image while the host's DNS server never
// answers, and counts what left the machine.
func TestPodWithoutNetworkTraffic(t *testing.T) {
	ns := namespace(t)
	counters := func() string {
		out, _, err := machine.Run(t.Context(), "", "sh", "-c", "cat /sys/class/net/eth0/statistics/tx_packets")
		if err != nil {
			t.Fatal(err)
		}
		return strings.TrimSpace(out)
	}
	// The kernel asks for IPv6 routers now and then, whoever runs pods.
	if _, err := machine.Lab(t.Context(), "root", machine.Name, "sh", "-c", "echo 1 >/proc/sys/net/ipv6/conf/eth0/disable_ipv6"); err != nil {
		t.Fatal(err)
	}
	// 10.77.0.253 does not exist: what is sent there is never answered.
	if _, err := machine.Lab(t.Context(), "root", machine.Name, "sh", "-c", "cp /etc/resolv.conf /run/resolv.was; echo nameserver 10.77.0.253 >/etc/resolv.conf"); err != nil {
		t.Fatal(err)
	}
	defer machine.Lab(background(), "root", machine.Name, "sh", "-c", "cat /run/resolv.was >/etc/resolv.conf")
	noise, err := lab.Listen()
	if err != nil {
		t.Fatal(err)
	}
	before, start := counters(), time.Now()
	pod(t, ns, "quiet", "containers: [{name: c, image: 'localhost/pause:1'}]")
	await(t, ns, "quiet", 20*time.Second, ready)
	took := time.Since(start)
	if after := counters(); after != before {
		t.Errorf("packets left the machine: %s before, %s after", before, after)
	}
	if took > time.Duration(noise.Factor()*float64(5*time.Second)) { // to ask it once takes 5 s at least
		t.Errorf("took %s with a DNS server that never answers", took)
	}
}
