package lab

import (
	"fmt"
	"os"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"
)

// Container is a running container of a pod, on whichever host.
type Container struct {
	Host, Name, Namespace, Pod, UID string
	PID                             int // of its monitor
}

// monitorName is how Podman names a pod's container to its monitor: container, namespace, pod, UID, attempt.
var monitorName = regexp.MustCompile(`^k8s_([^_]+)_([^_]+)_([^_]+)_([^_]+)_\d+$`)

var hostCgroup = regexp.MustCompile(`/lab/(h\d+)`)

// Containers lists the running containers of pods on all hosts, by their monitors: it asks neither
// Podman nor the API, so it costs milliseconds and believes nobody.
func Containers() ([]Container, error) {
	entries, err := os.ReadDir("/proc")
	if err != nil {
		return nil, err
	}
	var out []Container
	for _, e := range entries {
		pid, err := strconv.Atoi(e.Name())
		if err != nil {
			continue
		}
		cmd, err := os.ReadFile("/proc/" + e.Name() + "/cmdline")
		if err != nil { // it has ended
			continue
		}
		args := strings.Split(string(cmd), "\x00")
		name := slices.Index(args, "-n")
		if !strings.HasSuffix(args[0], "conmon") || name < 0 || name+1 >= len(args) {
			continue
		}
		m := monitorName.FindStringSubmatch(args[name+1])
		cgroup, err := os.ReadFile("/proc/" + e.Name() + "/cgroup")
		host := hostCgroup.FindSubmatch(cgroup)
		if m == nil || err != nil || host == nil || !watches(pid) {
			continue
		}
		out = append(out, Container{string(host[1]), m[1], m[2], m[3], m[4], pid})
	}
	return out, nil
}

// watches tells whether a monitor has something to watch: it lives a little longer than its container,
// to let Podman clean up.
func watches(pid int) bool {
	children, err := os.ReadFile(fmt.Sprintf("/proc/%d/task/%d/children", pid, pid))
	if err != nil {
		return false
	}
	for _, child := range strings.Fields(string(children)) {
		name, err := os.ReadFile("/proc/" + child + "/comm")
		if err == nil && strings.TrimSpace(string(name)) != "podman" {
			return true
		}
	}
	return false
}

// Twice names the pods of a namespace that run in two places at once, be it under the same UID or
// under another.
func Twice(containers []Container, namespace string) []string {
	where := map[string]Container{}
	var out []string
	for _, c := range containers {
		if c.Namespace != namespace {
			continue
		}
		key := c.Pod + "/" + c.Name
		if other, known := where[key]; known && (other.Host != c.Host || other.UID != c.UID) {
			out = append(out, fmt.Sprintf("%s runs on %s (%s) and on %s (%s)", key, other.Host, other.UID, c.Host, c.UID))
		}
		where[key] = c
	}
	return out
}

// Guard looks at the containers of a namespace ten times a second, so that no pod is in two places
// at any moment. The function ends it and returns what it saw, each sighting once.
func Guard(namespace string) (stop func() []string) {
	end, done := make(chan struct{}), make(chan struct{})
	seen := map[string]bool{}
	var mu sync.Mutex
	look := func() {
		containers, err := Containers()
		mu.Lock()
		defer mu.Unlock()
		if err != nil {
			seen[err.Error()] = true
		}
		for _, s := range Twice(containers, namespace) {
			seen[s] = true
		}
	}
	go func() {
		defer close(done)
		tick := time.NewTicker(100 * time.Millisecond)
		defer tick.Stop()
		for {
			select {
			case <-tick.C:
				look()
			case <-end:
				return
			}
		}
	}()
	return func() []string {
		close(end)
		<-done
		out := make([]string, 0, len(seen))
		for s := range seen {
			out = append(out, s)
		}
		slices.Sort(out)
		return out
	}
}
