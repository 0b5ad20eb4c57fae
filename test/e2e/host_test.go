//go:build e2e

package e2e

import (
	"bytes"
	"context"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/vishvananda/netns"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"
)

// host is one machine of the lab.
type host struct {
	name     string
	flags    []string
	rootless bool
	repo     string // absolute path of the checkout
	work     string // where the lab keeps the hosts' disks
}

func newHost() (*host, error) {
	repo, err := filepath.Abs("../..")
	if err != nil {
		return nil, err
	}
	h := &host{name: os.Getenv("SWARM_E2E_HOST"), flags: strings.Fields(os.Getenv("SWARM_E2E_FLAGS")), repo: repo, work: os.Getenv("LAB_WORK")}
	if h.name == "" {
		return nil, fmt.Errorf("SWARM_E2E_HOST is not set: run these tests by `make e2e`")
	}
	if h.work == "" {
		h.work = "/var/tmp/swarm-lab"
	}
	h.rootless = slices.Contains(h.flags, "--rootless")
	return h, nil
}

func (h *host) index() string { return strings.TrimPrefix(h.name, "h") }

// dataDir is the agent's data directory as the host sees it, and as we see it from outside.
func (h *host) dataDir() (inside, outside string) {
	if h.rootless {
		return "/home/podlab/swarm", filepath.Join(h.work, "state", h.name, "home/swarm")
	}
	return "/var/lib/podman-swarm", filepath.Join(h.work, "state", h.name, "swarm")
}

func (h *host) lab(ctx context.Context, args ...string) (string, error) {
	c := exec.CommandContext(ctx, filepath.Join(h.repo, "test/lab/lab"), args...)
	out, err := c.CombinedOutput()
	if err != nil {
		return string(out), fmt.Errorf("lab %s: %w: %s", strings.Join(args, " "), err, out)
	}
	return string(out), nil
}

// run executes a command on the host as the agent's user and returns what it printed.
func (h *host) run(ctx context.Context, stdin string, args ...string) (stdout, stderr string, err error) {
	c := exec.CommandContext(ctx, filepath.Join(h.repo, "test/lab/lab"), append([]string{"exec", h.name}, args...)...)
	var so, se bytes.Buffer
	c.Stdin, c.Stdout, c.Stderr = strings.NewReader(stdin), &so, &se
	err = c.Run()
	return so.String(), se.String(), err
}

// psctl runs psctl on the host with the admin kubeconfig; a failure ends the test.
func (h *host) psctl(t *testing.T, args ...string) string {
	t.Helper()
	return h.psctlIn(t, "", args...)
}

// psctlIn is psctl with something on standard input.
func (h *host) psctlIn(t *testing.T, stdin string, args ...string) string {
	t.Helper()
	out, errOut, err := h.tryPsctl(t.Context(), stdin, args...)
	if err != nil {
		t.Fatalf("psctl %s: %v\n%s%s", strings.Join(args, " "), err, out, errOut)
	}
	return out
}

// tryPsctl is psctl for calls that are expected to fail.
func (h *host) tryPsctl(ctx context.Context, stdin string, args ...string) (stdout, stderr string, err error) {
	inside, _ := h.dataDir()
	return h.run(ctx, stdin, append([]string{"env", "KUBECONFIG=" + inside + "/admin.kubeconfig", h.client()}, args...)...)
}

// client is the unmodified kubectl when there is one to be tested with, else psctl.
func (h *host) client() string {
	if k := filepath.Join(h.repo, "bin/kubectl"); fileExists(k) {
		return k
	}
	return filepath.Join(h.repo, "bin/psctl")
}

func fileExists(path string) bool { _, err := os.Stat(path); return err == nil }

// startAgent starts the agent on the host and waits until the API is ready.
func (h *host) startAgent(ctx context.Context, extra ...string) error {
	inside, outside := h.dataDir()
	if err := os.MkdirAll(filepath.Join(h.work, "logs"), 0o755); err != nil {
		return err
	}
	log, err := os.OpenFile(h.agentLog(), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o644)
	if err != nil {
		return err
	}
	defer log.Close()
	args := []string{"exec", h.name, filepath.Join(h.repo, "bin/podman-swarm"), "agent", "--data-dir", inside,
		"--advertise-addr", "10.77.0." + h.index()}
	c := exec.Command(filepath.Join(h.repo, "test/lab/lab"), append(args, extra...)...)
	c.Stdout, c.Stderr = log, log
	c.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	if err := c.Start(); err != nil {
		return err
	}
	exited := make(chan error, 1)
	go func() { exited <- c.Wait() }()
	for {
		if fileExists(filepath.Join(outside, "admin.kubeconfig")) {
			if client, err := h.clientset(); err == nil {
				if _, err = client.Discovery().RESTClient().Get().AbsPath("/readyz").DoRaw(ctx); err == nil {
					return nil
				}
			}
		}
		select {
		case err := <-exited:
			return fmt.Errorf("agent ended (%w): %s", err, h.tailLog(10))
		case <-ctx.Done():
			return fmt.Errorf("agent not ready: %w: %s", ctx.Err(), h.tailLog(20))
		case <-time.After(50 * time.Millisecond):
		}
	}
}

func (h *host) agentLog() string { return filepath.Join(h.work, "logs", h.name+".log") }

func (h *host) tailLog(n int) string {
	b, _ := os.ReadFile(h.agentLog())
	lines := strings.Split(strings.TrimSpace(string(b)), "\n")
	return strings.Join(lines[max(0, len(lines)-n):], "\n")
}

// pids returns the processes of the host whose command line contains text.
func (h *host) pids(text string) []int {
	var out []int
	// container processes live in cgroups below; the agent and its helpers in the host's own
	b, _ := os.ReadFile("/sys/fs/cgroup/pids/lab/" + h.name + "/cgroup.procs")
	for _, s := range strings.Fields(string(b)) {
		cmd, err := os.ReadFile("/proc/" + s + "/cmdline")
		if err != nil || !strings.Contains(strings.ReplaceAll(string(cmd), "\x00", " "), text) {
			continue
		}
		if exe, err := os.Readlink("/proc/" + s + "/exe"); err != nil || strings.HasSuffix(exe, "bash") || strings.HasSuffix(exe, "nsenter") || strings.HasSuffix(exe, "sh") || strings.HasSuffix(exe, "dash") || strings.HasSuffix(exe, "setpriv") {
			continue
		}
		if pid, err := strconv.Atoi(s); err == nil {
			out = append(out, pid)
		}
	}
	return out
}

// signalAgent sends a signal to the agent and waits until it has gone.
func (h *host) signalAgent(ctx context.Context, sig syscall.Signal) error {
	pids := h.pids("podman-swarm agent")
	for _, pid := range pids {
		if err := syscall.Kill(pid, sig); err != nil {
			return fmt.Errorf("signal agent: %w", err)
		}
	}
	for len(h.pids("podman-swarm agent")) > 0 {
		select {
		case <-ctx.Done():
			return fmt.Errorf("agent does not end: %w", ctx.Err())
		case <-time.After(10 * time.Millisecond):
		}
	}
	return nil
}

// config returns an administrator's client configuration that dials inside the host's network.
func (h *host) config() (*rest.Config, error) {
	_, outside := h.dataDir()
	cfg, err := clientcmd.BuildConfigFromFlags("", filepath.Join(outside, "admin.kubeconfig"))
	if err != nil {
		return nil, err
	}
	cfg.Dial = h.dial
	cfg.QPS = -1
	return cfg, nil
}

func (h *host) clientset() (*kubernetes.Clientset, error) {
	cfg, err := h.config()
	if err != nil {
		return nil, err
	}
	return kubernetes.NewForConfig(cfg)
}

// dial connects from inside the host's network namespace: the thread visits it for the call.
func (h *host) dial(ctx context.Context, network, addr string) (net.Conn, error) {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	home, err := netns.Get()
	if err != nil {
		return nil, err
	}
	defer home.Close()
	there, err := netns.GetFromName("lab-" + h.name)
	if err != nil {
		return nil, err
	}
	defer there.Close()
	if err := netns.Set(there); err != nil {
		return nil, err
	}
	defer netns.Set(home)
	var d net.Dialer
	return d.DialContext(ctx, network, addr)
}

// eventually polls until check returns nil, or fails the test with the last error.
func eventually(t *testing.T, within time.Duration, check func() error) {
	t.Helper()
	deadline := time.Now().Add(within)
	var err error
	for {
		if err = check(); err == nil {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("not within %s: %v", within, err)
		}
		time.Sleep(50 * time.Millisecond)
	}
}
