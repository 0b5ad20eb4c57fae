//go:build e2e

package e2e

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"
)

// kills is how often the agent is killed under writers.
const kills = 50

// TestSurviveKills kills the agent with SIGKILL under eight writers, again and again: no
// acknowledged write may be missing, no resourceVersion may repeat or go back, and the containers
// must not notice.
func TestSurviveKills(t *testing.T) {
	ns := namespace(t)
	pod(t, ns, "bystander", "containers: [{name: c, image: 'localhost/echo:1'}]")
	before := await(t, ns, "bystander", 30*time.Second, ready)

	ctx, stop := context.WithCancel(t.Context())
	defer stop()
	var acked atomic.Int64
	var writers sync.WaitGroup
	results := make([]error, 8)
	for i := range results {
		writers.Go(func() { results[i] = write(ctx, ns, i, &acked) })
	}
	for round := range kills {
		floor := acked.Load() + 20
		for acked.Load() < floor && ctx.Err() == nil { // every round has writes to lose
			time.Sleep(5 * time.Millisecond)
		}
		if err := machine.SignalAgent(ctx, syscall.SIGKILL); err != nil {
			t.Fatalf("round %d: %v", round, err)
		}
		start, cancel := context.WithTimeout(ctx, time.Minute)
		err := machine.StartAgent(start)
		cancel()
		if err != nil {
			t.Fatalf("round %d: %v", round, err)
		}
	}
	stop()
	writers.Wait()
	for i, err := range results {
		if err != nil {
			t.Errorf("writer %d: %v", i, err)
		}
	}
	t.Logf("%d acknowledged writes over %d kills", acked.Load(), kills)
	after := await(t, ns, "bystander", 30*time.Second, ready)
	if a, b := before.Status.ContainerStatuses[0], after.Status.ContainerStatuses[0]; a.ContainerID != b.ContainerID || b.RestartCount != 0 {
		t.Errorf("the container was not adopted: %s (restarts %d), was %s", b.ContainerID, b.RestartCount, a.ContainerID)
	}
	if before.Status.PodIP != after.Status.PodIP {
		t.Errorf("the pod's address changed from %s to %s", before.Status.PodIP, after.Status.PodIP)
	}
}

// write counts a ConfigMap up, one acknowledged update after another, until ctx ends; then it
// compares what it was promised with what is there.
func write(ctx context.Context, ns string, id int, acked *atomic.Int64) error {
	var c *kubernetes.Clientset
	var err error
	if c, err = machine.Clientset(); err != nil {
		return err
	}
	maps, name := c.CoreV1().ConfigMaps(ns), fmt.Sprintf("writer-%d", id)
	last, lastRV := 0, uint64(0)
	for next := 1; ctx.Err() == nil; {
		cm := &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Name: name}, Data: map[string]string{"n": strconv.Itoa(next)}}
		var got *corev1.ConfigMap
		call, cancel := context.WithTimeout(ctx, 5*time.Second)
		if last == 0 {
			got, err = maps.Create(call, cm, metav1.CreateOptions{})
			if apierrors.IsAlreadyExists(err) { // the create before the kill was committed, its answer lost
				got, err = maps.Update(call, cm, metav1.UpdateOptions{})
			}
		} else {
			got, err = maps.Update(call, cm, metav1.UpdateOptions{})
		}
		cancel()
		if err != nil {
			if apierrors.IsNotFound(err) {
				return fmt.Errorf("acknowledged %d, but the object is gone", last)
			}
			time.Sleep(20 * time.Millisecond)
			continue
		}
		rv, err := strconv.ParseUint(got.ResourceVersion, 10, 64)
		if err != nil || rv <= lastRV {
			return fmt.Errorf("resourceVersion %s after %d", got.ResourceVersion, lastRV)
		}
		last, lastRV = next, rv
		next++
		acked.Add(1)
	}
	end, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	defer cancel()
	got, err := maps.Get(end, name, metav1.GetOptions{})
	if err != nil {
		return err
	}
	if n, _ := strconv.Atoi(got.Data["n"]); n < last {
		return fmt.Errorf("acknowledged %d, stored %d", last, n)
	}
	return nil
}

// TestSurvivePowerFailure cuts the power of the whole machine.
func TestSurvivePowerFailure(t *testing.T) {
	ns := namespace(t)
	psctl(t, "-n", ns, "create", "configmap", "kept", "--from-literal=a=b")
	pod(t, ns, "always", "containers: [{name: c, image: 'localhost/echo:1'}]")
	pod(t, ns, "once", "restartPolicy: Never\ncontainers: [{name: c, image: 'localhost/echo:1'}]")
	pod(t, ns, "done", script("true", ""))
	psctlIn(t, fmt.Sprintf(web, "1"), "-n", ns, "apply", "-f", "-")
	await(t, ns, "always", 30*time.Second, ready)
	await(t, ns, "once", 30*time.Second, ready)
	await(t, ns, "done", 30*time.Second, phase(corev1.PodSucceeded))
	psctl(t, "-n", ns, "rollout", "status", "deploy/web", "--timeout=60s")

	powerCycle(t)

	psctl(t, "-n", ns, "get", "configmap", "kept")
	p := await(t, ns, "always", 60*time.Second, func(p *corev1.Pod) bool { return ready(p) && p.Status.ContainerStatuses[0].RestartCount >= 1 })
	if last := p.Status.ContainerStatuses[0].LastTerminationState.Terminated; last == nil || last.ExitCode == 0 {
		t.Errorf("a container that was cut off has last state %+v", last)
	}
	await(t, ns, "once", 60*time.Second, phase(corev1.PodFailed))
	await(t, ns, "done", 10*time.Second, phase(corev1.PodSucceeded))
	psctl(t, "-n", ns, "rollout", "status", "deploy/web", "--timeout=60s")
	leftovers(t)
}

func powerCycle(t *testing.T) {
	t.Helper()
	for _, args := range [][]string{{"crash", machine.Name}, {"boot", machine.Name}} {
		if _, err := machine.Lab(t.Context(), args...); err != nil {
			t.Fatal(err)
		}
	}
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	if err := machine.StartAgent(ctx); err != nil {
		t.Fatal(err)
	}
}

// traces counts what pods leave on a host.
type traces struct{ containers, pods, namespaces, veths, mounts, podDirs int }

func hostTraces(t *testing.T) traces {
	t.Helper()
	inside, _ := machine.DataDir()
	count := func(cmd string) int {
		t.Helper()
		out, errOut, err := machine.Run(t.Context(), "", "sh", "-c", cmd)
		n, convErr := strconv.Atoi(strings.TrimSpace(out))
		if convErr != nil {
			t.Fatalf("%s: %v %v %s%s", cmd, err, convErr, out, errOut)
		}
		return n
	}
	in := "" // where the pod network is
	if machine.Rootless {
		in = "podman unshare "
	}
	return traces{
		containers: count("podman ps -aq | wc -l"),
		pods:       count("podman pod ps -q | wc -l"),
		namespaces: count(in + "sh -c 'grep -c nsfs /proc/self/mountinfo || true'"),
		veths:      veths(t),
		mounts:     count(in + "sh -c 'grep -c " + inside + "/pods /proc/self/mountinfo || true'"),
		podDirs:    count("ls " + inside + "/pods 2>/dev/null | wc -l"),
	}
}

// veths counts the host ends of pod cables, in the namespace the network helper lives in.
func veths(t *testing.T) int {
	t.Helper()
	helpers := machine.Pids("podman-swarm-netd")
	if len(helpers) == 0 {
		t.Fatal("no network helper runs")
	}
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/net/dev", helpers[0]))
	if err != nil {
		t.Fatal(err)
	}
	n := 0
	for line := range strings.Lines(string(b)) {
		if name := strings.TrimSpace(strings.SplitN(line, ":", 2)[0]); strings.HasPrefix(name, "ps") && name != "psw0" {
			n++
		}
	}
	return n
}

// leftovers compares the host with the pods the API knows.
func leftovers(t *testing.T) {
	t.Helper()
	eventually(t, 30*time.Second, func() error {
		list, err := client(t).CoreV1().Pods("").List(t.Context(), metav1.ListOptions{})
		if err != nil {
			return err
		}
		networked := 0
		for _, p := range list.Items {
			if !p.Spec.HostNetwork && p.Status.Phase == corev1.PodRunning {
				networked++
			}
		}
		have := hostTraces(t)
		if have.podDirs > len(list.Items) || have.veths > len(list.Items) || have.pods > len(list.Items) {
			return fmt.Errorf("%d pods in the API, on the host %+v", len(list.Items), have)
		}
		if have.veths < networked {
			return fmt.Errorf("%d running pods, %d cables", networked, have.veths)
		}
		return nil
	})
}

// cycles is how many pods are made and deleted.
const cycles = 300

// TestSurviveCycles makes and deletes pods and compares the host before and after.
func TestSurviveCycles(t *testing.T) {
	ns := namespace(t)
	run := func(n int) {
		t.Helper()
		pods := client(t).CoreV1().Pods(ns)
		for i := range n {
			pod(t, ns, fmt.Sprintf("p%d", i), "containers: [{name: c, image: 'localhost/pause:1'}]\nautomountServiceAccountToken: true")
		}
		for i := range n {
			await(t, ns, fmt.Sprintf("p%d", i), 2*time.Minute, ready)
		}
		if err := pods.DeleteCollection(t.Context(), metav1.DeleteOptions{}, metav1.ListOptions{}); err != nil {
			t.Fatal(err)
		}
		eventually(t, 2*time.Minute, func() error {
			list, err := pods.List(t.Context(), metav1.ListOptions{})
			if err == nil && len(list.Items) > 0 {
				err = fmt.Errorf("%d pods left", len(list.Items))
			}
			return err
		})
	}
	const batch = 30
	run(batch) // warm: caches, pools
	settled := hostTraces(t)
	fds, memory := agentUse(t)
	for range cycles / batch {
		run(batch)
	}
	eventually(t, 20*time.Second, func() error {
		if have := hostTraces(t); have != settled {
			return fmt.Errorf("traces after %d cycles %+v, before %+v", cycles, have, settled)
		}
		return nil
	})
	eventually(t, 60*time.Second, func() error {
		fdsNow, memoryNow := agentUse(t)
		if fdsNow > fds+20 || memoryNow > memory*13/10+10<<10 {
			return fmt.Errorf("agent has %d files and %d KB anonymous memory, had %d and %d", fdsNow, memoryNow, fds, memory)
		}
		return nil
	})
}

// agentUse returns the agent's open files and its anonymous memory in KB.
func agentUse(t *testing.T) (fds, anon int) {
	t.Helper()
	pids := machine.Pids("podman-swarm agent")
	if len(pids) != 1 {
		t.Fatalf("%d agents run: %v", len(pids), pids)
	}
	entries, err := os.ReadDir(fmt.Sprintf("/proc/%d/fd", pids[0]))
	if err != nil {
		t.Fatal(err)
	}
	status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pids[0]))
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(status)) {
		if _, err := fmt.Sscanf(line, "RssAnon: %d kB", &anon); err == nil {
			break
		}
	}
	return len(entries), anon
}

// TestSurvivePodmanStop stops Podman's service: the node must say so, and recover, and its pods
// must not notice. Hosts on which the agent starts the service itself have nothing to stop.
func TestSurvivePodmanStop(t *testing.T) {
	if fileContains(filepath.Join(machine.Work, "state", machine.Name, "service"), "0") {
		t.Skip("this host has no Podman service of its own: the agent starts one on demand")
	}
	ns := namespace(t)
	pod(t, ns, "calm", "containers: [{name: c, image: 'localhost/echo:1'}]")
	before := await(t, ns, "calm", 30*time.Second, ready)
	condition := func() (status, text string) {
		out := psctl(t, "get", "nodes", "-o", `jsonpath={range .items[0].status.conditions[?(@.type=="Ready")]}{.status} {.reason}: {.message}{end}`)
		status, text, _ = strings.Cut(out, " ")
		return status, text
	}
	if _, err := machine.Lab(t.Context(), "service", machine.Name, "stop"); err != nil {
		t.Fatal(err)
	}
	eventually(t, 20*time.Second, func() error {
		if s, text := condition(); s != "False" || !strings.Contains(strings.ToLower(text), "podman") {
			return fmt.Errorf("Ready is %s (%s)", s, text)
		}
		return nil
	})
	if _, err := machine.Lab(t.Context(), "service", machine.Name, "start"); err != nil {
		t.Fatal(err)
	}
	eventually(t, 20*time.Second, func() error {
		if s, text := condition(); s != "True" {
			return fmt.Errorf("Ready is %s (%s)", s, text)
		}
		return nil
	})
	after := await(t, ns, "calm", 20*time.Second, ready)
	if a, b := before.Status.ContainerStatuses[0], after.Status.ContainerStatuses[0]; a.ContainerID != b.ContainerID || b.RestartCount != 0 {
		t.Errorf("the pod was touched: %+v", b)
	}
}

func fileContains(path, text string) bool {
	b, err := os.ReadFile(path)
	return err == nil && strings.TrimSpace(string(b)) == text
}

// TestRefusals: bad input gets one clear line and a non-zero exit.
func TestRefusals(t *testing.T) {
	inside, _ := machine.DataDir()
	bin := filepath.Join(machine.Repo, "bin/podman-swarm")
	tmp := "/tmp/refusals-" + machine.Name
	if _, errOut, err := machine.Run(t.Context(), "", "sh", "-c", "mkdir -p "+tmp+"/newer && echo 999 >"+tmp+"/newer/VERSION && echo 'nodeNam: x' >"+tmp+"/bad.yaml && mkdir -p "+tmp+"/nobin && ln -sf $(command -v podman) "+tmp+"/nobin/podman"); err != nil {
		t.Fatal(err, errOut)
	}
	defer machine.Run(background(), "", "rm", "-rf", tmp)
	for _, tc := range []struct{ name, command, want string }{
		{"unknown flag", bin + " agent --nosuch", "unknown flag: --nosuch"},
		{"unknown config key", bin + " agent --config " + tmp + "/bad.yaml", "nodeNam"},
		{"directory in use", bin + " agent --data-dir " + inside, "in use by another agent"},
		{"newer directory", bin + " agent --data-dir " + tmp + "/newer", "written by a newer release"},
		{"port in use", bin + " agent --data-dir " + tmp + "/d1", "address already in use"},
		{"unreadable socket", bin + " agent --data-dir " + tmp + "/d2 --api-addr 127.0.0.1:7443 --podman-socket /nosuch/podman.sock", "/nosuch/podman.sock"},
		{"missing nft", "env PATH=" + tmp + "/nobin " + bin + " agent --data-dir " + tmp + "/d3", "nft is not installed"},
		{"missing podman", "env PATH=/nonexistent " + bin + " agent --data-dir " + tmp + "/d4", "podman is not installed"},
		{"bad values", bin + " agent --data-dir rel --node-name Bad_Name", "--node-name"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			_, errOut, err := machine.Run(t.Context(), "", "timeout", "20", "sh", "-c", tc.command)
			if err == nil {
				t.Fatalf("exit status 0: %s", errOut)
			}
			var lines []string
			for line := range strings.Lines(errOut) {
				if strings.HasPrefix(line, "podman-swarm: ") {
					lines = append(lines, strings.TrimSpace(line))
				}
			}
			if len(lines) == 0 || !strings.Contains(strings.Join(lines, "\n"), tc.want) || len(lines) > 2 {
				t.Errorf("%d lines, want one with %q:\n%s", len(lines), tc.want, errOut)
			}
		})
	}
}
