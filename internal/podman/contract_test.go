package podman_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/podman-swarm/podman-swarm/internal/podman"
)

// The contract test runs against a real Podman, on the machine whose socket it is: files, process IDs and exit
// files are looked at too.
const (
	socketVar = "PSWARM_TEST_PODMAN_SOCKET"
	busybox   = "localhost/busybox:1"
	testLabel = "io.podman-swarm.test"
)

func realClient(t *testing.T) *podman.Client {
	t.Helper()
	sock := os.Getenv(socketVar)
	if sock == "" {
		t.Skip(socketVar + " names no libpod socket")
	}
	log := slog.New(slog.NewTextHandler(t.Output(), &slog.HandlerOptions{Level: slog.LevelDebug})) // every call with its time
	c := podman.New(podman.Config{Socket: sock, Log: log})
	if err := c.Ping(t.Context()); err != nil {
		t.Fatal(err)
	}
	return c
}

func imageID(t *testing.T, c *podman.Client) string {
	t.Helper()
	img, err := c.Image(t.Context(), busybox)
	if err != nil {
		t.Fatal(err)
	}
	return img.ID
}

// run creates and starts a container that is removed with the test.
func run(t *testing.T, c *podman.Client, change func(*podman.ContainerSpec), cmd ...string) podman.Container {
	t.Helper()
	id := create(t, c, change, cmd...)
	if err := c.Start(t.Context(), id); err != nil {
		t.Fatal(err)
	}
	return inspect(t, c, id)
}

func create(t *testing.T, c *podman.Client, change func(*podman.ContainerSpec), cmd ...string) string {
	t.Helper()
	spec := podman.ContainerSpec{
		Name: strings.NewReplacer("/", "-").Replace(t.Name()) + fmt.Sprint(time.Now().UnixNano()), Image: imageID(t, c),
		Entrypoint: cmd, Labels: map[string]string{testLabel: "yes"}, NetNS: podman.Namespace{Mode: "none"},
		Log: podman.LogConfig{Driver: "k8s-file", Path: filepath.Join(t.TempDir(), "log")}, RestartPolicy: "no",
		Health: &podman.HealthConfig{Test: []string{"NONE"}}, Systemd: "false",
	}
	if change != nil {
		change(&spec)
	}
	id, err := c.Create(t.Context(), spec)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := c.Remove(context.WithoutCancel(t.Context()), id, true); err != nil {
			t.Errorf("remove: %v", err)
		}
	})
	return id
}

func inspect(t *testing.T, c *podman.Client, id string) podman.Container {
	t.Helper()
	ctr, err := c.Inspect(t.Context(), id)
	if err != nil {
		t.Fatal(err)
	}
	return ctr
}

func awaitState(t *testing.T, c *podman.Client, id string, want podman.ContainerState) podman.Container {
	t.Helper()
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	deadline := time.After(20 * time.Second)
	for {
		ctr := inspect(t, c, id)
		if ctr.State == want {
			return ctr
		}
		select {
		case <-tick.C:
		case <-deadline:
			t.Fatalf("state %s, want %s", ctr.State, want)
		}
	}
}

func wantErr(t *testing.T, err, want error) {
	t.Helper()
	if !errors.Is(err, want) {
		t.Errorf("error %v, want %v", err, want)
	}
}

func TestContractInfo(t *testing.T) {
	c := realClient(t)
	info, err := c.Info(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	t.Logf("%+v", info)
	if info.Version == "" || info.MemTotal == 0 || info.CPUs == 0 || info.GraphRoot == "" || info.Rootless != (os.Getuid() != 0) {
		t.Errorf("incomplete: %+v", info)
	}
	if info.Rootless != (info.MaxUID > 0) {
		t.Errorf("rootless %v with largest uid %d", info.Rootless, info.MaxUID)
	}
}

func TestContractImages(t *testing.T) {
	c := realClient(t)
	img, err := c.Image(t.Context(), "busybox:1") // short: Docker Hub's or a local one
	if err != nil {
		t.Fatal(err)
	}
	if !slices.Contains(img.RepoTags, busybox) || len(img.ID) != 64 || img.Size == 0 {
		t.Errorf("image %+v", img)
	}
	for _, ref := range []string{busybox, img.ID, "sha256:" + img.ID} {
		if got, err := c.Image(t.Context(), ref); err != nil || got.ID != img.ID {
			t.Errorf("image %s: %s, %v", ref, got.ID, err)
		}
	}
	if len(img.RepoDigests) > 0 {
		if got, err := c.Image(t.Context(), img.RepoDigests[0]); err != nil || got.ID != img.ID {
			t.Errorf("by digest %s: %v", img.RepoDigests[0], err)
		}
	}
	for _, ref := range []string{"nosuch:1", "docker.io/library/busybox:1", "example.com/busybox:1", img.ID[:12], strings.Repeat("0", 64)} {
		_, err := c.Image(t.Context(), ref)
		wantErr(t, err, podman.ErrNotFound)
	}
	list, err := c.Images(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if !slices.ContainsFunc(list, func(i podman.Image) bool { return i.ID == img.ID && slices.Contains(i.RepoTags, busybox) }) {
		t.Errorf("busybox not in the list %+v", list)
	}
}

func TestContractPullError(t *testing.T) {
	c := realClient(t)
	start := time.Now()
	_, err := c.Pull(t.Context(), "localhost:1/nosuch:1", &podman.Auth{Username: "u", Password: "p"})
	t.Logf("%v: %v", time.Since(start), err)
	if err == nil || !strings.Contains(err.Error(), "connection refused") {
		t.Errorf("error %v", err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 200*time.Millisecond)
	defer cancel()
	start = time.Now()
	_, err = c.Pull(ctx, "192.0.2.1/nosuch:1", nil)
	wantErr(t, err, context.DeadlineExceeded)
	if d := time.Since(start); d > 2*time.Second {
		t.Errorf("canceled after %v", d)
	}
}

var criLine = regexp.MustCompile(`^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{9}(Z|[+-]\d\d:\d\d) (stdout|stderr) [FP] (.*)$`)

func TestContractLifeAndLog(t *testing.T) {
	c := realClient(t)
	ctr := run(t, c, nil, "sh", "-c", "echo out; echo err >&2; printf part; exit 7")
	ctr = awaitState(t, c, ctr.ID, podman.Exited)
	if ctr.ExitCode != 7 || ctr.Started.IsZero() || ctr.Finished.Before(ctr.Started) || ctr.ImageID != imageID(t, c) {
		t.Errorf("container %+v", ctr)
	}
	b, err := os.ReadFile(ctr.LogPath)
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	for line := range strings.Lines(string(b)) {
		m := criLine.FindStringSubmatch(strings.TrimSuffix(line, "\n"))
		if m == nil {
			t.Fatalf("not a CRI line: %q", line)
		}
		got = append(got, m[2]+" "+m[3])
	}
	slices.Sort(got)
	if want := []string{"stderr err", "stdout out", "stdout part"}; !slices.Equal(got[:min(3, len(got))], want) {
		t.Errorf("log %q, want %q", b, want)
	}
	t.Logf("log %q", b)
	wantErr(t, c.Kill(t.Context(), ctr.ID, "SIGTERM"), podman.ErrConflict)
	if err := c.Stop(t.Context(), ctr.ID, 0); err != nil {
		t.Errorf("stop twice: %v", err)
	}
	_, err = c.Exec(t.Context(), ctr.ID, podman.ExecConfig{Cmd: []string{"true"}})
	wantErr(t, err, podman.ErrConflict)
}

func TestContractErrors(t *testing.T) {
	c := realClient(t)
	ctr := run(t, c, nil, "sleep", "1000")
	_, err := c.Create(t.Context(), podman.ContainerSpec{Name: ctr.Name, Image: ctr.ImageID, Entrypoint: []string{"true"}})
	wantErr(t, err, podman.ErrConflict)
	_, err = c.Create(t.Context(), podman.ContainerSpec{Name: "nosuch", Image: strings.Repeat("0", 64)})
	wantErr(t, err, podman.ErrNotFound)
	_, err = c.Inspect(t.Context(), "nosuch")
	wantErr(t, err, podman.ErrNotFound)
	wantErr(t, c.Start(t.Context(), "nosuch"), podman.ErrNotFound)
	wantErr(t, c.Remove(t.Context(), ctr.ID, false), podman.ErrConflict)
	if err := c.Remove(t.Context(), "nosuch", true); err != nil {
		t.Errorf("remove an absent one: %v", err)
	}
	if err := c.RemovePod(t.Context(), "nosuch"); err != nil {
		t.Errorf("remove an absent pod: %v", err)
	}
	if err := c.Start(t.Context(), ctr.ID); err != nil {
		t.Errorf("start twice: %v", err)
	}
	bad := create(t, c, nil, "/nosuch")
	err = c.Start(t.Context(), bad)
	t.Logf("missing executable: %v", err)
	if err == nil || !strings.Contains(err.Error(), "nosuch") {
		t.Errorf("missing executable: %v", err)
	}
	var out, errOut bytes.Buffer
	code, err := c.Exec(t.Context(), ctr.ID, podman.ExecConfig{Cmd: []string{"/nosuch"}, Stdout: &out, Stderr: &errOut})
	t.Logf("exec of a missing executable: %d %v %q %q", code, err, &out, &errOut)
}

func TestContractExits(t *testing.T) {
	c := realClient(t)
	info, err := c.Info(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	exits := make(chan podman.Exit, 100)
	done := make(chan error, 1)
	go func() { done <- podman.WatchExits(ctx, info.ExitsDir, func(e podman.Exit) { exits <- e }) }()
	ctr := run(t, c, nil, "sleep", "1000")
	killed := time.Now()
	if err := c.Kill(t.Context(), ctr.ID, "SIGKILL"); err != nil {
		t.Fatal(err)
	}
	deadline := time.After(5 * time.Second)
	for seen := false; !seen; {
		select {
		case e := <-exits:
			if e.ID == ctr.ID {
				t.Logf("exit of %s in %s: code %d after %v", ctr.ID[:12], info.ExitsDir, e.Code, time.Since(killed))
				seen = true
			}
		case <-deadline:
			t.Fatalf("no exit file in %s", info.ExitsDir)
		}
	}
	cancel()
	wantErr(t, <-done, context.Canceled)
}

func TestContractExec(t *testing.T) {
	c := realClient(t)
	ctr := run(t, c, nil, "sleep", "1000")
	var out, errOut bytes.Buffer
	start := time.Now()
	code, err := c.Exec(t.Context(), ctr.ID, podman.ExecConfig{
		Cmd: []string{"sh", "-c", "cat; echo bad >&2; exit 3"}, Stdin: strings.NewReader("in\n"), Stdout: &out, Stderr: &errOut,
	})
	if err != nil || code != 3 || out.String() != "in\n" || errOut.String() != "bad\n" {
		t.Errorf("code %d, out %q, err %q: %v", code, &out, &errOut, err)
	}
	t.Logf("exec took %v", time.Since(start))
	out.Reset()
	big := strings.Repeat("0123456789abcdef", 1<<16) // 1 MiB
	code, err = c.Exec(t.Context(), ctr.ID, podman.ExecConfig{Cmd: []string{"cat"}, Stdin: strings.NewReader(big), Stdout: &out})
	if err != nil || code != 0 || out.String() != big {
		t.Errorf("1 MiB: code %d, %d bytes: %v", code, out.Len(), err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 500*time.Millisecond)
	defer cancel()
	start = time.Now()
	_, err = c.Exec(ctx, ctr.ID, podman.ExecConfig{Cmd: []string{"sleep", "777"}, Stdout: io.Discard})
	wantErr(t, err, context.DeadlineExceeded)
	if d := time.Since(start); d > 3*time.Second {
		t.Errorf("canceled after %v", d)
	}
	out.Reset()
	if _, err := c.Exec(t.Context(), ctr.ID, podman.ExecConfig{Cmd: []string{"ps"}, Stdout: &out}); err != nil || strings.Contains(out.String(), "777") {
		t.Errorf("the canceled command still runs: %v\n%s", err, &out)
	}
}

// An exec leaves no process behind: neither the command nor Podman's own.
func TestContractExecLeavesNothing(t *testing.T) {
	c := realClient(t)
	ctr := run(t, c, nil, "sleep", "1000")
	for range 5 {
		if _, err := c.Exec(t.Context(), ctr.ID, podman.ExecConfig{Cmd: []string{"true"}}); err != nil {
			t.Fatal(err)
		}
	}
	for range 100 {
		if n := conmons(t, ctr.ID); n == 1 { // the container's own
			return
		}
		<-time.After(50 * time.Millisecond)
	}
	t.Errorf("%d conmon processes of the container are left", conmons(t, ctr.ID))
}

func conmons(t *testing.T, id string) int {
	t.Helper()
	files, err := filepath.Glob("/proc/[0-9]*/cmdline")
	if err != nil {
		t.Fatal(err)
	}
	n := 0
	for _, f := range files {
		b, err := os.ReadFile(f)
		if err == nil && bytes.Contains(b, []byte("conmon\x00")) && bytes.Contains(b, []byte("\x00"+id+"\x00")) {
			n++
		}
	}
	return n
}

func TestContractExecTTY(t *testing.T) {
	c := realClient(t)
	ctr := run(t, c, nil, "sleep", "1000")
	resize := make(chan podman.Size, 2)
	resize <- podman.Size{Width: 100, Height: 40}
	in, feed := io.Pipe()
	out := &lineWaiter{want: "40 100", seen: make(chan struct{})}
	done := make(chan error, 1)
	go func() {
		code, err := c.Exec(t.Context(), ctr.ID, podman.ExecConfig{Cmd: []string{"sh"}, Stdin: in, Stdout: out, TTY: true, Resize: resize})
		if err == nil && code != 5 {
			err = fmt.Errorf("code %d", code)
		}
		done <- err
	}()
	say := func(s string) {
		if _, err := io.WriteString(feed, s); err != nil {
			t.Error(err)
		}
	}
	say("stty size\n")
	out.await(t, done)
	out.expect("60 120")
	resize <- podman.Size{Width: 120, Height: 60}
	say("for i in 1 2 3 4 5 6 7 8 9 10; do stty size; sleep 0.1; done\n")
	out.await(t, done)
	say("exit 5\n")
	if err := <-done; err != nil {
		t.Errorf("%v\n%s", err, out.String())
	}
	if err := feed.Close(); err != nil {
		t.Error(err)
	}
}

// No key sequence may detach a Kubernetes client, as Podman's default does.
func TestContractDetachKeys(t *testing.T) {
	c := realClient(t)
	ctr := run(t, c, nil, "sleep", "1000")
	in, feed := io.Pipe()
	out := &lineWaiter{want: "ready", seen: make(chan struct{})}
	done := make(chan error, 1)
	go func() {
		_, err := c.Exec(t.Context(), ctr.ID, podman.ExecConfig{
			Cmd: []string{"sh", "-c", "stty raw -echo; echo ready; head -c 3 | od -An -tx1"}, Stdin: in, Stdout: out, TTY: true,
		})
		done <- err
	}()
	out.await(t, done)
	out.expect("10 11 61")
	if _, err := io.WriteString(feed, "\x10\x11a"); err != nil {
		t.Error(err)
	}
	if err := <-done; err != nil || !strings.Contains(out.String(), "10 11 61") {
		t.Errorf("%v\n%q", err, out.String())
	}
	if err := feed.Close(); err != nil {
		t.Error(err)
	}
}

func TestContractAttach(t *testing.T) {
	c := realClient(t)
	ctr := run(t, c, func(s *podman.ContainerSpec) { s.Stdin = true }, "sh", "-c", "cat; echo end >&2; exit 4")
	var out, errOut bytes.Buffer
	if err := c.Attach(t.Context(), ctr.ID, podman.AttachConfig{Stdin: strings.NewReader("hello\n"), Stdout: &out, Stderr: &errOut}); err != nil {
		t.Error(err)
	}
	if out.String() != "hello\n" || errOut.String() != "end\n" {
		t.Errorf("out %q err %q", &out, &errOut)
	}
	if ctr := awaitState(t, c, ctr.ID, podman.Exited); ctr.ExitCode != 4 {
		t.Errorf("exit code %d", ctr.ExitCode)
	}
}

func TestContractPodAndLists(t *testing.T) {
	c := realClient(t)
	labels := map[string]string{testLabel: t.Name()}
	spec := podman.PodSpec{Name: t.Name(), NoInfra: true, Labels: labels}
	id, err := c.CreatePod(t.Context(), spec)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := c.RemovePod(context.WithoutCancel(t.Context()), id); err != nil {
			t.Error(err)
		}
	})
	_, err = c.CreatePod(t.Context(), spec)
	wantErr(t, err, podman.ErrConflict)
	owner := run(t, c, nil, "sleep", "1000") // whose network namespace is joined by path
	ns := fmt.Sprintf("/proc/%d/ns/net", owner.Pid)
	ctr := run(t, c, func(s *podman.ContainerSpec) {
		s.Pod, s.Labels, s.NetNS = id, labels, podman.Namespace{Mode: "path", Value: ns}
	}, "sleep", "1000")
	list, err := c.Containers(t.Context(), labels)
	if err != nil || len(list) != 1 || list[0].ID != ctr.ID || list[0].State != podman.Running || list[0].PodID != id ||
		list[0].Labels[testLabel] != t.Name() || list[0].Name != ctr.Name || list[0].Pid != ctr.Pid || list[0].Created.IsZero() {
		t.Errorf("containers %+v, %v", list, err)
	}
	pods, err := c.Pods(t.Context(), labels)
	if err != nil || len(pods) != 1 || pods[0].ID != id || !slices.Contains(pods[0].Containers, ctr.ID) || pods[0].Labels[testLabel] != t.Name() {
		t.Errorf("pods %+v, %v", pods, err)
	}
	if list, err := c.Containers(t.Context(), map[string]string{testLabel: "nobody"}); err != nil || len(list) != 0 {
		t.Errorf("containers of another label: %v, %v", list, err)
	}
	st, err := c.Stats(t.Context())
	t.Logf("stats: %+v, %v", st, err)
}

func TestContractRotateLog(t *testing.T) {
	c := realClient(t)
	ctr := run(t, c, nil, "sh", "-c", "i=0; while [ $i -lt 400 ]; do echo line $i; i=$((i+1)); usleep 1000; done; sleep 1000")
	var files []string
	for n := range 3 {
		to := fmt.Sprintf("%s.%d", ctr.LogPath, n)
		if err := podman.RotateLog(ctr.StaticDir, ctr.LogPath, to); err != nil {
			t.Fatal(err)
		}
		files = append(files, to)
		awaitFile(t, ctr.LogPath)
	}
	files = append(files, ctr.LogPath)
	deadline := time.Now().Add(20 * time.Second)
	want := 400
	for {
		var all []byte
		for _, f := range files {
			b, err := os.ReadFile(f)
			if err != nil {
				t.Fatal(err)
			}
			all = append(all, b...)
		}
		got := bytes.Count(all, []byte(" F line "))
		if got == want {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("%d lines of %d", got, want)
		}
		<-time.After(50 * time.Millisecond)
	}
}

func awaitFile(t *testing.T, path string) {
	t.Helper()
	for range 200 {
		if fi, err := os.Stat(path); err == nil && fi.Size() > 0 {
			return
		}
		<-time.After(20 * time.Millisecond)
	}
	t.Fatalf("%s does not come", path)
}
