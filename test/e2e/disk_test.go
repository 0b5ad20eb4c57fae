//go:build e2e

package e2e

import (
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/podman-swarm/podman-swarm/test/lab"
)

// spare makes a second machine like the one under test, whose data directory is a tmpfs of the given
// size, and starts its agent.
func spare(t *testing.T, size string) *lab.Host {
	t.Helper()
	n, err := strconv.Atoi(machine.Index())
	if err != nil {
		t.Fatal(err)
	}
	h, err := lab.New(machine.Repo, fmt.Sprintf("h%d", n+10), machine.Flags...)
	if err != nil {
		t.Fatal(err)
	}
	if err := h.Add(t.Context()); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if t.Failed() {
			t.Logf("log of the agent:\n%s", h.TailLog(30))
		}
		if err := h.Remove(background()); err != nil {
			t.Error(err)
		}
	})
	inside, _ := h.DataDir()
	owner := ""
	if h.Rootless {
		owner = ",uid=7700,gid=7700"
	}
	if _, err := h.Lab(t.Context(), "root", h.Name, "sh", "-c", "mkdir -p "+inside+" && mount -t tmpfs -o mode=700,size="+size+owner+" tmpfs "+inside); err != nil {
		t.Fatal(err)
	}
	if err := startAgent(t.Context(), h); err != nil {
		t.Fatal(err)
	}
	return h
}

// on runs kubectl on another host than the one under test.
func on(t *testing.T, h *lab.Host, stdin string, args ...string) string {
	t.Helper()
	out, errOut, err := h.Psctl(t.Context(), stdin, args...)
	if err != nil {
		t.Fatalf("%s: kubectl %s: %v\n%s%s", h.Name, strings.Join(args, " "), err, out, errOut)
	}
	return out
}

const witness = `
apiVersion: v1
kind: Pod
metadata: {name: witness}
spec:
  terminationGracePeriodSeconds: 1
  containers: [{name: c, image: "localhost/echo:1"}]
---
apiVersion: v1
kind: ConfigMap
metadata: {name: kept}
data: {a: b}
`

// witnessed makes a pod and a ConfigMap and returns the pod's container.
func witnessed(t *testing.T, h *lab.Host) string {
	t.Helper()
	eventually(t, 20*time.Second, func() error { // the namespace gets its service account in a moment
		_, errOut, err := h.Psctl(t.Context(), witness, "apply", "-f", "-")
		return wrap(err, errOut)
	})
	on(t, h, "", "wait", "--for=condition=Ready", "pod/witness", "--timeout=60s")
	return container(t, h)
}

func container(t *testing.T, h *lab.Host) string {
	t.Helper()
	return on(t, h, "", "get", "pod", "witness", "-o", "jsonpath={.status.containerStatuses[0].containerID} {.status.containerStatuses[0].restartCount}")
}

// TestSurviveDiskFull fills the disk the data directory is on: writes are refused in clear words,
// reads and running pods go on, and it recovers by itself.
func TestSurviveDiskFull(t *testing.T) {
	h := spare(t, "160m")
	was := witnessed(t, h)
	_, outside := h.DataDir()
	fill := filepath.Join(outside, "fill")
	if _, err := h.Lab(t.Context(), "root", h.Name, "sh", "-c", "head -c 1G /dev/zero >"+filepath.Join(inner(h), "fill")+" 2>/dev/null || true"); err != nil {
		t.Fatal(err)
	}
	eventually(t, 20*time.Second, func() error {
		_, errOut, err := h.Psctl(t.Context(), "", "create", "configmap", fmt.Sprintf("late-%d", time.Now().UnixNano()))
		if err == nil || !strings.Contains(errOut, "disk full: writes are refused") {
			return fmt.Errorf("a write on a full disk: %w %s", err, errOut)
		}
		return nil
	})
	reads := func() {
		t.Helper()
		contains(t, "read", on(t, h, "", "get", "configmap", "kept", "-o", "yaml"), "a: b")
		contains(t, "the pod answers", on(t, h, "", "get", "--raw", "/api/v1/namespaces/default/pods/witness:8080/proxy/"), `"host":"witness"`)
		if now := container(t, h); now != was {
			t.Errorf("the container is %s, was %s", now, was)
		}
	}
	reads()
	if err := os.Remove(fill); err != nil {
		t.Fatal(err)
	}
	eventually(t, 30*time.Second, func() error {
		_, errOut, err := h.Psctl(t.Context(), "", "create", "configmap", fmt.Sprintf("again-%d", time.Now().UnixNano()))
		return wrap(err, errOut)
	})
	on(t, h, "", "run", "after", "--image=localhost/pause:1")
	on(t, h, "", "wait", "--for=condition=Ready", "pod/after", "--timeout=60s")
	reads()
}

func inner(h *lab.Host) string { inside, _ := h.DataDir(); return inside }

// TestSurviveDamage changes one byte of, and then cuts, every file that must not change: the agent
// says which, and how to go on, and does not start. With the file restored it has everything.
func TestSurviveDamage(t *testing.T) {
	h := spare(t, "400m")
	was := witnessed(t, h)
	_, dir := h.DataDir()
	marked(t, dir)
	stopAgent(t, h, syscall.SIGKILL)
	files := precious(t, dir, rounds(1, 0) == 0)
	for _, file := range files {
		whole, err := os.ReadFile(filepath.Join(dir, file))
		if err != nil {
			t.Fatal(err)
		}
		end := len(strings.TrimRight(string(whole), "\x00")) // a log is longer than what is in it
		middle := end / 2
		for whole[middle] == 0 { // between the copies in meta
			middle--
		}
		flipped := slices.Clone(whole)
		flipped[middle] ^= 0x10
		for what, content := range map[string][]byte{"a flipped byte": flipped, "most missing": whole[:end/4]} {
			t.Run(file+", "+what, func(t *testing.T) { damaged(t, h, filepath.Join(dir, file), content) })
		}
		if err := os.WriteFile(filepath.Join(dir, file), whole, 0); err != nil {
			t.Fatal(err)
		}
	}
	if err := startAgent(t.Context(), h); err != nil {
		t.Fatal(err)
	}
	contains(t, "after all that", on(t, h, "", "get", "configmap", "kept", "-o", "yaml"), "a: b")
	on(t, h, "", "wait", "--for=condition=Ready", "pod/witness", "--timeout=60s")
	if now := container(t, h); now != was {
		t.Errorf("the container is %s, was %s", now, was)
	}
}

// marked waits until it is on disk how far the log reaches, which may lag behind the log by a second: what is cut
// off before that passes for a write that was under way.
func marked(t *testing.T, dir string) {
	t.Helper()
	eventually(t, 20*time.Second, func() error {
		var written [2]time.Time
		for i, pattern := range []string{"state/raft/*/meta", "state/raft/*/log/*.log"} {
			files, err := filepath.Glob(filepath.Join(dir, pattern))
			if err != nil || len(files) != 1 {
				return fmt.Errorf("%s: %q, %w", pattern, files, err)
			}
			info, err := os.Stat(files[0])
			if err != nil {
				return err
			}
			written[i] = info.ModTime()
		}
		if written[0].Before(written[1]) {
			return fmt.Errorf("the log is %v ahead of its mark", written[1].Sub(written[0]))
		}
		return nil
	})
}

// precious are the files below a data directory that an agent must not start without; few leaves out
// the keys but one.
func precious(t *testing.T, dir string, few bool) []string {
	t.Helper()
	files, parts := []string{"VERSION"}, []string{"state", "pki"}
	if few {
		files, parts = append(files, "pki/sa.key"), parts[:1]
	}
	for _, part := range parts {
		err := filepath.WalkDir(filepath.Join(dir, part), func(path string, d fs.DirEntry, err error) error {
			if err != nil || d.IsDir() || d.Name() == "lock" {
				return err
			}
			rel, err := filepath.Rel(dir, path)
			files = append(files, rel)
			return err
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	if len(files) < 5 {
		t.Fatalf("only %q below %s", files, dir)
	}
	return files
}

// derived are the files that an agent makes again by itself: the swarm's authority can sign them anew.
func derived() []string {
	return []string{
		"apiserver.crt", "apiserver.key", "front-proxy-client.crt", "front-proxy-client.key", "ca-issuer.crt", "node.crt", "node.key",
	}
}

func damaged(t *testing.T, h *lab.Host, path string, content []byte) {
	t.Helper()
	if err := os.WriteFile(path, content, 0); err != nil {
		t.Fatal(err)
	}
	if err := os.Truncate(h.AgentLog(), 0); err != nil {
		t.Fatal(err)
	}
	err := startAgent(t.Context(), h)
	said := h.TailLog(100)
	name := path[strings.Index(path, "/root/")+len("/root"):]
	if err == nil {
		defer stopAgent(t, h, syscall.SIGKILL)
		switch base := filepath.Base(path); {
		case slices.Contains(derived(), base): // made anew of what is intact
		case base == "meta" && strings.Contains(said, "level=WARN") && strings.Contains(said, name): // one of its two copies is enough
		default:
			t.Fatalf("the agent started:\n%s", said)
		}
		on(t, h, "", "get", "configmap", "kept")
		return
	}
	lines := complaints(said)
	if len(lines) != 1 || !strings.Contains(lines[0], name) || !strings.Contains(lines[0], "restore") && !strings.Contains(lines[0], "backup") {
		t.Errorf("%d lines, want one that names %s and the way back:\n%s", len(lines), name, said)
	}
}
