package podman_test

import (
	"context"
	"fmt"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/podman-swarm/podman-swarm/internal/podman"
)

func TestServiceWithoutPodman(t *testing.T) {
	s := podman.NewService(podman.ServiceConfig{
		Socket: filepath.Join(t.TempDir(), "s"), Binary: "no-such-podman", Log: slog.New(slog.DiscardHandler),
	})
	_, err := s.Dial(t.Context())
	wantErr(t, err, podman.ErrUnavailable)
	if !strings.Contains(err.Error(), "no-such-podman is not installed: install Podman") {
		t.Error(err)
	}
}

// script is a stand-in for the podman command.
func script(t *testing.T, text string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "podman")
	if err := os.WriteFile(path, []byte("#!/bin/sh\n"+text), 0o700); err != nil {
		t.Fatal(err)
	}
	return path
}

func TestServiceThatFails(t *testing.T) {
	s := podman.NewService(podman.ServiceConfig{
		Socket: filepath.Join(t.TempDir(), "run", "s"), Log: slog.New(slog.DiscardHandler),
		Binary: script(t, "echo one >&2; echo cannot find newuidmap >&2; exit 125"),
	})
	_, err := s.Dial(t.Context())
	wantErr(t, err, podman.ErrUnavailable)
	if !strings.Contains(err.Error(), "ended at once: one; cannot find newuidmap") {
		t.Error(err)
	}
	if err := s.Close(); err != nil {
		t.Error(err)
	}
}

func TestServiceThatHangs(t *testing.T) {
	s := podman.NewService(podman.ServiceConfig{
		Socket: filepath.Join(t.TempDir(), "s"), Log: slog.New(slog.DiscardHandler), Binary: script(t, "exec sleep 60"),
	})
	ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
	defer cancel()
	_, err := s.Dial(ctx)
	wantErr(t, err, context.DeadlineExceeded)
	if err := s.Close(); err != nil {
		t.Error(err)
	}
	if pid, ok := s.Running(); ok {
		t.Errorf("%d still runs", pid)
	}
}

// TestContractService runs the real podman command: it starts with a call, leaves when idle while a container goes on,
// and comes back with the next call.
func TestContractService(t *testing.T) {
	if os.Getenv(socketVar) == "" {
		t.Skip(socketVar + " names no libpod socket: no machine to try Podman on")
	}
	if _, err := exec.LookPath("podman"); err != nil {
		t.Skip(err)
	}
	s := podman.NewService(podman.ServiceConfig{
		Socket: filepath.Join(t.TempDir(), "podman.sock"), Idle: time.Second, Log: slog.New(slog.DiscardHandler),
	})
	c := podman.NewWithService(s, slog.New(slog.DiscardHandler))
	t.Cleanup(func() { // after the containers' own cleanups
		if err := c.Close(); err != nil {
			t.Error(err)
		}
	})
	begun := time.Now()
	if err := c.Ping(t.Context()); err != nil {
		t.Fatal(err)
	}
	t.Logf("first answer after %v", time.Since(begun))
	pid, ok := s.Running()
	if !ok {
		t.Fatal("no service runs")
	}
	ctr := run(t, c, nil, "sleep", "1000")
	if _, err := c.Exec(t.Context(), ctr.ID, podman.ExecConfig{Cmd: []string{"true"}}); err != nil {
		t.Error(err)
	}
	begun = time.Now()
	for _, ok := s.Running(); ok; _, ok = s.Running() {
		if time.Since(begun) > 20*time.Second {
			t.Fatal("the service does not leave")
		}
		<-time.After(20 * time.Millisecond)
	}
	t.Logf("left after %v", time.Since(begun))
	if again := inspect(t, c, ctr.ID); again.State != podman.Running || again.Pid != ctr.Pid {
		t.Errorf("container %+v, was %+v", again, ctr)
	}
	if second, ok := s.Running(); !ok || second == pid {
		t.Errorf("service %d, %v", second, ok)
	}
	// A service that is killed in the middle of a call: that call fails, the next one works.
	stopped := make(chan error, 1)
	ignoring := run(t, c, nil, "sleep", "1000")
	go func() { stopped <- c.Stop(t.Context(), ignoring.ID, 30*time.Second) }()
	<-time.After(500 * time.Millisecond)
	second, _ := s.Running()
	p, err := os.FindProcess(second)
	if err == nil {
		err = p.Kill()
	}
	if err != nil {
		t.Fatal(err)
	}
	t.Logf("cut off: %v", <-stopped)
	again := inspect(t, c, ctr.ID)
	if again.State != podman.Running || again.Pid != ctr.Pid {
		t.Errorf("container %+v, was %+v", again, ctr)
	}
	// Podman 4 would remove the container of the stop that was cut off, and leave its process.
	if err := c.Remove(t.Context(), ignoring.ID, true); err != nil {
		t.Error(err)
	}
	if _, err := os.Stat(fmt.Sprintf("/proc/%d", ignoring.Pid)); err == nil {
		t.Errorf("process %d of a removed container still runs", ignoring.Pid)
	}
}
