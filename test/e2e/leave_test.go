//go:build e2e

package e2e

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"
)

// Processes that pods must outlive.
const (
	helperProcess  = "podman-swarm-netd"
	serviceProcess = "podman system service"
)

// TestSurviveGracefulStop stops the agent by SIGTERM: pods run on, and the next agent adopts them
// with what they wrote meanwhile.
func TestSurviveGracefulStop(t *testing.T) {
	keepRunning(t)
	ns := namespace(t)
	pod(t, ns, "calm", "containers: [{name: c, image: 'localhost/busybox:1', command: [sh, -c, 'i=0; while :; do i=$((i+1)); echo $i; sleep 0.1; done']}]")
	before := await(t, ns, "calm", 30*time.Second, ready)
	start := time.Now()
	stopAgent(t, machine, syscall.SIGTERM)
	if took := time.Since(start); took > 15*time.Second {
		t.Errorf("the agent took %s to stop", took)
	}
	time.Sleep(time.Second) // the pod writes ten lines that nobody reads
	if out, errOut, err := machine.Run(t.Context(), "", "podman", "ps", "--filter", "status=running", "--format", "{{.Names}}"); err != nil || !strings.Contains(out, "k8s_c_"+ns+"_calm_") {
		t.Errorf("the container does not run without the agent: %v %s%s", err, out, errOut)
	}
	if err := startAgent(t.Context(), machine); err != nil {
		t.Fatal(err)
	}
	untouched(t, before, await(t, ns, "calm", 30*time.Second, ready))
	for i, line := range strings.Fields(logs(t, ns, "calm")) {
		if line != fmt.Sprint(i+1) {
			t.Fatalf("line %d of the log is %q", i+1, line)
		}
	}
}

// TestSurviveHelperLoss kills the processes the pod network depends on: pods keep their cables and
// addresses, and everything that went through the lost process works again soon.
func TestSurviveHelperLoss(t *testing.T) {
	ns := namespace(t)
	const port = 28090
	pod(t, ns, "a", "containers: [{name: c, image: 'localhost/echo:1'}]")
	pod(t, ns, "b", fmt.Sprintf("containers: [{name: c, image: 'localhost/echo:1', ports: [{containerPort: 8080, hostPort: %d}], readinessProbe: {httpGet: {path: /readyz, port: 8080}, periodSeconds: 1}}]", port))
	a, b := await(t, ns, "a", 30*time.Second, ready), await(t, ns, "b", 30*time.Second, ready)
	works := func() error {
		ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
		defer cancel()
		for _, url := range []string{"http://" + b.Status.PodIP + ":8080/", fmt.Sprintf("http://10.77.0.%s:%d/", machine.Index(), port)} {
			out, errOut, err := machine.Psctl(ctx, "", "get", "--raw", "/api/v1/namespaces/"+ns+"/pods/a:8080/proxy/get?url="+url)
			if err != nil || !strings.Contains(out, `"host":"b"`) {
				return fmt.Errorf("pod a gets %s: %w %s%s", url, err, out, errOut)
			}
		}
		return nil
	}
	eventually(t, 10*time.Second, works)
	lose := func(name string) {
		t.Helper()
		pids := machine.Pids(name)
		if len(pids) == 0 {
			t.Fatalf("no %s runs", name)
		}
		ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
		defer cancel()
		if err := machine.End(ctx, syscall.SIGKILL, pids...); err != nil {
			t.Fatal(err)
		}
		eventually(t, 20*time.Second, works)
	}
	lose(helperProcess)
	if machine.Rootless {
		lose(uplink(t))
	}
	untouched(t, a, await(t, ns, "a", 10*time.Second, ready))
	untouched(t, b, await(t, ns, "b", 10*time.Second, ready))
	pod(t, ns, "late", "containers: [{name: c, image: 'localhost/echo:1'}]")
	late := await(t, ns, "late", 30*time.Second, ready)
	if late.Status.PodIP == a.Status.PodIP || late.Status.PodIP == b.Status.PodIP {
		t.Errorf("a new pod was given the address %s of another", late.Status.PodIP)
	}
	shows(t, "a pod made afterwards", asking(t, "get", "--raw", "/api/v1/namespaces/"+ns+"/pods/late:8080/proxy/get?url=http://"+b.Status.PodIP+":8080/"), `"host":"b"`)
}

// uplink is the process that connects a rootless pod network with the outside.
func uplink(t *testing.T) string {
	t.Helper()
	for _, name := range []string{"slirp4netns", "pasta"} {
		if len(machine.Pids(name)) > 0 {
			return name
		}
	}
	t.Fatal("neither slirp4netns nor pasta runs")
	return ""
}

// ownService tells whether this host has a Podman service that is not the agent's.
func ownService() bool {
	return !fileContains(filepath.Join(machine.Work, "state", machine.Name, "service"), "0")
}

// TestSurviveServiceLeaving waits until the service that the agent started has left, as it does when
// it is idle: containers run on, and it comes back when it is needed.
func TestSurviveServiceLeaving(t *testing.T) {
	if ownService() {
		t.Skip("this host has a Podman service of its own, which stays")
	}
	ns := namespace(t)
	pod(t, ns, "calm", "containers: [{name: c, image: 'localhost/echo:1', livenessProbe: {httpGet: {path: /healthz, port: 8080}, periodSeconds: 1}}]")
	before := await(t, ns, "calm", 30*time.Second, ready)
	eventually(t, 90*time.Second, func() error {
		if pids := machine.Pids(serviceProcess); len(pids) > 0 {
			return fmt.Errorf("the service runs on although nothing asks it: %v", pids)
		}
		return nil
	})
	if out := psctl(t, "get", "--raw", "/api/v1/namespaces/"+ns+"/pods/calm:8080/proxy/"); !strings.Contains(out, `"host":"calm"`) {
		t.Errorf("the pod answers %q", out)
	}
	pod(t, ns, "late", script("echo came back", ""))
	await(t, ns, "late", 30*time.Second, phase("Succeeded"))
	untouched(t, before, await(t, ns, "calm", 10*time.Second, ready))
}

// TestSurvivePodmanStop stops the Podman service that the agent was told to use: the node must say so,
// and recover, and its pods must not notice. An agent that was told nothing starts one of its own.
func TestSurvivePodmanStop(t *testing.T) {
	if !ownService() {
		t.Skip("this host has no Podman service of its own: the agent starts one on demand")
	}
	keepRunning(t)
	restart := func(args ...string) {
		t.Helper()
		stopAgent(t, machine, syscall.SIGTERM)
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		if err := machine.StartAgent(ctx, args...); err != nil {
			t.Fatal(err)
		}
	}
	restart("--podman-socket", filepath.Join(filepath.Dir(runtimeDir()), "podman/podman.sock"))
	defer restart()
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
	defer machine.Lab(background(), "service", machine.Name, "start")
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
	untouched(t, before, after)
}

func fileContains(path, text string) bool {
	b, err := os.ReadFile(path)
	return err == nil && strings.TrimSpace(string(b)) == text
}
