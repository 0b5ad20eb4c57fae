package playdead

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/podman-swarm/podman-swarm/internal/node/datadir"
	"github.com/podman-swarm/podman-swarm/internal/podman"
	"github.com/podman-swarm/podman-swarm/internal/podspec"
)

// The test binary plays all three parts: an agent, what it becomes, and the agent again.
func TestMain(m *testing.M) {
	if len(os.Args) > 2 {
		switch os.Args[1] {
		case Command:
			if err := Main(context.Background(), os.Args[2:]); err != nil {
				fmt.Fprintln(os.Stdout, "failed:", err)
				os.Exit(1)
			}
			return
		case "agent":
			fmt.Fprintln(os.Stdout, "failed:", agent(os.Args[2], os.Args[3]))
			os.Exit(1)
		case "again":
			again(os.Args[2])
			return
		}
	}
	os.Exit(m.Run())
}

// agent has a port, a lock, a child and a descriptor that it has inherited, and dies.
func agent(dir, pause string) error {
	d, err := time.ParseDuration(pause)
	if err != nil {
		return err
	}
	if _, err := datadir.Open(dir); err != nil {
		return err
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return err
	}
	if err := exec.Command("true").Start(); err != nil {
		return err
	}
	if err := Prepare(); err != nil {
		return err
	}
	fmt.Fprintln(os.Stdout, "agent", os.Getpid(), l.Addr())
	self, err := os.Executable()
	if err != nil {
		return err
	}
	return Death{Pause: d, DataDir: dir, RunDir: dir, Hollow: true, Program: self, Args: []string{"the agent", "again", dir, "--flag=a b"}}.Begin()
}

func again(dir string) {
	var open []string
	for fd := 3; fd < 64; fd++ {
		target, err := os.Readlink("/proc/self/fd/" + strconv.Itoa(fd))
		if err == nil && !strings.HasPrefix(target, "anon_inode:") && !strings.HasPrefix(target, "/sys/fs/cgroup") {
			open = append(open, target)
		}
	}
	_, err := datadir.Open(dir)
	var status syscall.WaitStatus
	child, _ := syscall.Wait4(-1, &status, syscall.WNOHANG, nil)
	fmt.Fprintf(os.Stdout, "again %d open=%v lock=%v child=%d env=%s args=%q\n", os.Getpid(), open, err, child, os.Getenv("DRILL_TEST"), os.Args[3:])
}

func TestPlaysDead(t *testing.T) {
	dir, inherited := t.TempDir(), func() *os.File {
		f, err := os.Open(os.DevNull)
		if err != nil {
			t.Fatal(err)
		}
		return f
	}()
	defer inherited.Close()
	cmd := exec.CommandContext(t.Context(), os.Args[0], "agent", dir, "4s")
	cmd.Env = append(os.Environ(), "DRILL_TEST=kept")
	cmd.ExtraFiles = []*os.File{inherited}
	cmd.Stderr = t.Output()
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	lines := bufio.NewScanner(out)
	var pid int
	var addr string
	if !lines.Scan() {
		t.Fatal("the agent said nothing")
	}
	if _, err := fmt.Sscanf(lines.Text(), "agent %d %s", &pid, &addr); err != nil || pid != cmd.Process.Pid {
		t.Fatalf("%s: %v", lines.Text(), err)
	}
	// Dead: nobody listens, and the data directory is taken by who plays dead.
	waitFor(t, "the port is closed", func() bool {
		c, err := net.Dial("tcp", addr)
		if err == nil {
			c.Close()
		}
		return err != nil
	})
	lock := filepath.Join(dir, "lock")
	waitFor(t, "the data directory is taken, and says by whom", func() bool {
		holder, _ := os.ReadFile(lock) // emptied between the two
		return locked(t, lock) && len(holder) > 0
	})
	if _, err := datadir.Open(dir); err == nil || !strings.Contains(err.Error(), fmt.Sprintf("in use by another agent (pid %d)", pid)) {
		t.Errorf("the data directory: %v", err)
	}
	rest, err := io.ReadAll(out)
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Wait(); err != nil {
		t.Error(err)
	}
	for lines.Scan() {
		rest = append([]byte(lines.Text()+"\n"), rest...)
	}
	want := fmt.Sprintf("again %d open=[] lock=<nil> child=-1 env=kept args=[\"--flag=a b\"]\n", pid)
	if !strings.HasSuffix(string(rest), want) {
		t.Errorf("said %q, want %q", rest, want)
	}
}

func waitFor(t *testing.T, what string, met func() bool) {
	t.Helper()
	late := time.After(20 * time.Second)
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for !met() {
		select {
		case <-tick.C:
		case <-late:
			t.Fatalf("not: %s", what)
		}
	}
}

func TestCommandIsReadBack(t *testing.T) {
	want := Death{
		Pause: 90 * time.Second, DataDir: "/a b", RunDir: "/run/x", Socket: "/run/podman.sock", Hollow: true,
		Program: "/usr/bin/podman-swarm", Args: []string{"podman-swarm", "agent", "--for=1s", "--", "x"},
	}
	got, err := parse(want.command()[2:])
	if err != nil || cmp.Diff(want, got) != "" {
		t.Errorf("%+v, %v", got, err)
	}
	for _, args := range [][]string{nil, {"--for=1s"}, {"--program=x", "--data-dir=/d"}, {"--nonsense"}} {
		if _, err := parse(args); err == nil {
			t.Errorf("%q was accepted", args)
		}
	}
}

// Who stops the service meanwhile does not want it started again.
func TestStoppedMeanwhile(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	d := Death{Pause: time.Hour, DataDir: t.TempDir(), Hollow: true, Program: "/nonexistent", Args: []string{"agent"}}
	if err := Main(ctx, d.command()[2:]); err != nil {
		t.Error(err)
	}
}

// host is a Podman whose containers take two kills.
type host struct {
	mu     sync.Mutex
	states map[string]podman.ContainerState
	killed []string
	asked  map[string]string
}

func (h *host) Containers(_ context.Context, labels map[string]string) ([]podman.Container, error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.asked = labels
	var out []podman.Container
	for id, state := range h.states {
		out = append(out, podman.Container{ID: id, State: state})
	}
	return out, nil
}

func (h *host) Kill(_ context.Context, id, signal string) error {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.killed = append(h.killed, id+" "+signal)
	switch id {
	case "gone":
		return podman.ErrNotFound
	case "stuck":
		return errors.New("no permission")
	}
	h.states[id] = podman.Exited
	return nil
}

func TestKillAll(t *testing.T) {
	h := &host{states: map[string]podman.ContainerState{"a": podman.Running, "b": podman.Paused, "c": podman.Exited, "gone": podman.Stopping, "stuck": podman.Running}}
	left, err := killAll(t.Context(), h, "/data")
	if left != 4 || err == nil || err.Error() != "no permission" {
		t.Errorf("%d left, %v", left, err)
	}
	slices.Sort(h.killed)
	if want := []string{"a SIGKILL", "b SIGKILL", "gone SIGKILL", "stuck SIGKILL"}; !slices.Equal(h.killed, want) {
		t.Errorf("killed %v, want %v", h.killed, want)
	}
	if h.asked[podspec.LabelDataDir] != "/data" {
		t.Errorf("asked for containers with %v", h.asked)
	}
	delete(h.states, "gone")
	delete(h.states, "stuck")
	if left, err := killAll(t.Context(), h, "/data"); left != 0 || err != nil {
		t.Errorf("%d left, %v", left, err)
	}
}

// locked looks at the kernel's list of locks: trying would take the lock away from who plays dead.
func locked(t *testing.T, path string) bool {
	t.Helper()
	info, err := os.Stat(path)
	if err != nil {
		return false
	}
	st, ok := info.Sys().(*syscall.Stat_t)
	if !ok {
		t.Fatal("no inode")
	}
	list, err := os.ReadFile("/proc/locks")
	if err != nil {
		t.Fatal(err)
	}
	return strings.Contains(string(list), fmt.Sprintf(":%d 0 EOF", st.Ino))
}
