//go:build e2e

package e2e

import (
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"reflect"
	"strconv"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// traces counts what pods leave on a host.
type traces struct {
	containers, pods, volumes    int // of Podman
	monitors, cgroups            int
	namespaces, veths, mounts    int
	podDirs, logDirs, runEntries int
}

// exceed tells whether there is more of anything than before. Less is no leak: what was there before
// may have been waiting to go.
func (tr traces) exceed(before traces) bool {
	have, had := reflect.ValueOf(tr), reflect.ValueOf(before)
	for i := range have.NumField() {
		if have.Field(i).Int() > had.Field(i).Int() {
			return true
		}
	}
	return false
}

func hostTraces(t *testing.T) traces {
	t.Helper()
	inside, outside := machine.DataDir()
	in := "" // where the pod network is
	if machine.Rootless {
		in = "podman unshare "
	}
	return traces{
		containers: count(t, "podman ps -aq | wc -l"),
		pods:       count(t, "podman pod ps -q | wc -l"),
		volumes:    count(t, "podman volume ls -q | wc -l"),
		monitors:   len(machine.Pids("conmon ")),
		cgroups:    dirs("/sys/fs/cgroup/pids/lab/" + machine.Name),
		namespaces: count(t, in+"sh -c 'grep -c nsfs /proc/self/mountinfo || true'"),
		veths:      veths(t),
		mounts:     count(t, in+"sh -c 'grep -c "+inside+"/pods /proc/self/mountinfo || true'"),
		podDirs:    entries(filepath.Join(outside, "pods")),
		logDirs:    entries(filepath.Join(outside, "logs")),
		runEntries: dirs(machine.Outside(runtimeDir())),
	}
}

// runtimeDir is below what the system empties at boot.
func runtimeDir() string {
	if machine.Rootless {
		return "/run/user/7700/podman-swarm"
	}
	return "/run/podman-swarm"
}

func count(t *testing.T, cmd string) int {
	t.Helper()
	out, errOut, err := machine.Run(t.Context(), "", "sh", "-c", cmd)
	n, convErr := strconv.Atoi(strings.TrimSpace(out))
	if convErr != nil {
		t.Fatalf("%s: %v %v %s%s", cmd, err, convErr, out, errOut)
	}
	return n
}

func entries(dir string) int {
	list, _ := os.ReadDir(dir)
	return len(list)
}

// dirs counts the directories and files below a directory, the directories only in a cgroup tree.
func dirs(root string) int {
	n := 0
	_ = filepath.WalkDir(root, func(_ string, d fs.DirEntry, err error) error {
		if err == nil && (d.IsDir() || !strings.HasPrefix(root, "/sys/")) {
			n++
		}
		return nil // what goes away while we look is not there
	})
	return n
}

// veths counts the host ends of pod cables, in the namespace where the network helper has a thread that
// makes them: the host's, or when rootless one that its other threads are not in.
func veths(t *testing.T) int {
	t.Helper()
	helpers := machine.Pids(helperProcess)
	if len(helpers) == 0 {
		t.Fatal("no network helper runs")
	}
	tasks, err := filepath.Glob(fmt.Sprintf("/proc/%d/task/*", helpers[0]))
	if err != nil {
		t.Fatal(err)
	}
	seen, n := map[string]bool{}, 0
	for _, task := range tasks {
		ns, err := os.Readlink(filepath.Join(task, "ns/net"))
		b, readErr := os.ReadFile(filepath.Join(task, "net/dev"))
		if err != nil || readErr != nil || seen[ns] { // a thread that has just ended
			continue
		}
		seen[ns] = true
		for line := range strings.Lines(string(b)) {
			if name := strings.TrimSpace(strings.SplitN(line, ":", 2)[0]); strings.HasPrefix(name, "psw") && name != "psw0" {
				n++
			}
		}
	}
	if len(seen) == 0 {
		t.Fatalf("the network helper, process %d, has gone", helpers[0])
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
		all, running := len(list.Items), 0
		for _, p := range list.Items {
			if !p.Spec.HostNetwork && p.Status.Phase == corev1.PodRunning {
				running++
			}
		}
		have := hostTraces(t)
		if have.podDirs > all || have.logDirs > all || have.veths > all || have.pods > all || have.volumes > 0 {
			return fmt.Errorf("%d pods in the API, on the host %+v", all, have)
		}
		if have.veths < running {
			return fmt.Errorf("%d running pods, on the host %+v", running, have)
		}
		return nil
	})
}

// TestSurviveCycles makes and deletes pods and compares the host before and after.
func TestSurviveCycles(t *testing.T) {
	const batch = 30
	cycles := rounds(300, 60)
	keepRunning(t)
	ns := namespace(t)
	eventually(t, time.Minute, func() error { // pods of former tests are none of ours
		list, err := client(t).CoreV1().Pods("").List(t.Context(), metav1.ListOptions{})
		if err == nil && len(list.Items) > 0 {
			err = fmt.Errorf("%d pods left by other tests", len(list.Items))
		}
		return err
	})
	makeAndDelete(t, ns, batch) // warm: caches, pools
	settled := settledTraces(t)
	before := agentUse(t)
	start := time.Now()
	for range cycles / batch {
		makeAndDelete(t, ns, batch)
	}
	t.Logf("%d cycles in %s", cycles, time.Since(start).Round(time.Second))
	eventually(t, 30*time.Second, func() error {
		if have := hostTraces(t); have.exceed(settled) {
			return fmt.Errorf("after %d cycles\n%+v, before\n%+v", cycles, have, settled)
		}
		return nil
	})
	var after use
	eventually(t, 90*time.Second, func() error {
		if after.files > 0 {
			time.Sleep(time.Second) // to ask is work for the agent, too
		}
		after = agentUse(t)
		if after.files > before.files+20 || after.goroutines > before.goroutines+50 || after.live > before.live*13/10+10<<10 {
			return fmt.Errorf("the agent uses %+v, used %+v", after, before)
		}
		return nil
	})
	t.Logf("agent before %+v, after %+v", before, after)
}

func makeAndDelete(t *testing.T, ns string, n int) {
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

// settledTraces waits until two looks, a second apart, see the same.
func settledTraces(t *testing.T) traces {
	t.Helper()
	last := hostTraces(t)
	eventually(t, 30*time.Second, func() error {
		time.Sleep(time.Second)
		now := hostTraces(t)
		was := last
		if last = now; now != was {
			return fmt.Errorf("%+v became %+v", was, now)
		}
		return nil
	})
	return last
}

// use is what an agent takes of its machine. live is its heap after a collection, in KB; anonymous
// memory, which depends on when the collector ran last, is for the log.
type use struct{ files, goroutines, live, anonymous int }

func agentUse(t *testing.T) use {
	t.Helper()
	var u use
	pids := machine.Pids(agentProcess)
	if len(pids) != 1 {
		t.Fatalf("%d agents run: %v", len(pids), pids)
	}
	u.files = entries(fmt.Sprintf("/proc/%d/fd", pids[0]))
	status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pids[0]))
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(status)) {
		if _, err := fmt.Sscanf(line, "RssAnon: %d kB", &u.anonymous); err == nil {
			break
		}
	}
	for path, find := range map[string]struct {
		line  string
		value *int
	}{
		"/debug/pprof/goroutine": {"goroutine profile: total %d", &u.goroutines},
		"/debug/pprof/heap":      {"# HeapAlloc = %d", &u.live},
	} {
		profile, err := client(t).RESTClient().Get().AbsPath(path).Param("debug", "1").Param("gc", "1").DoRaw(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		for line := range strings.Lines(string(profile)) {
			if _, err := fmt.Sscanf(line, find.line, find.value); err == nil {
				break
			}
		}
		if *find.value == 0 {
			t.Fatalf("no %q in %s:\n%.200s", find.line, path, profile)
		}
	}
	u.live >>= 10
	return u
}
