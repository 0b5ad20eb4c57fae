// Package lab drives the machines of ./lab from Go: the end-to-end tests and the benchmark share it.
package lab

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/vishvananda/netns"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"
)

// runTimeout bounds one command on a host: a command that hangs is a failure of its test.
const runTimeout = 3 * time.Minute

// Host is one machine of the lab.
type Host struct {
	Name     string   // h1 to h64
	Flags    []string // of `lab add`
	Rootless bool
	Repo     string // absolute path of the checkout
	Work     string // where the lab keeps the hosts' disks
	Program  string // podman-swarm; "": Bin("podman-swarm")
	Data     string // the agent's data directory as the host sees it; "": where tests do not meet the default

	mu  sync.Mutex
	api *api // of the kubeconfig that was last seen
}

// api is one set of connections to a host's API, for everybody who asks it often.
type api struct {
	kubeconfig []byte
	config     *rest.Config
	http       *http.Client
	clientset  *kubernetes.Clientset
}

// New describes a host; nothing is made yet. repo is the checkout.
func New(repo, name string, flags ...string) (*Host, error) {
	repo, err := filepath.Abs(repo)
	if err != nil {
		return nil, err
	}
	h := &Host{Name: name, Flags: flags, Repo: repo, Work: os.Getenv("LAB_WORK"), Rootless: slices.Contains(flags, "--rootless")}
	if h.Work == "" {
		h.Work = "/var/tmp/swarm-lab"
	}
	return h, nil
}

// Add makes the machine and boots it; Remove ends it and forgets its disk.
func (h *Host) Add(ctx context.Context) error {
	_ = os.Remove(h.AgentLog())
	_, err := h.Lab(ctx, append([]string{"add", h.Name}, h.Flags...)...)
	return err
}

// Remove powers the machine off and removes its disk.
func (h *Host) Remove(ctx context.Context) error {
	_, err := h.Lab(ctx, "rm", h.Name)
	return err
}

// Index is the number of the host; its address is 10.77.0.Index.
func (h *Host) Index() string { return strings.TrimPrefix(h.Name, "h") }

// Addr is the host's address in the lab's network.
func (h *Host) Addr() string { return "10.77.0." + h.Index() }

// DataDir is the agent's data directory as the host sees it, and as we see it from outside.
func (h *Host) DataDir() (inside, outside string) {
	switch {
	case h.Data != "":
		inside = h.Data
	case h.Rootless:
		inside = "/home/podlab/swarm"
	default:
		inside = "/var/lib/podman-swarm"
	}
	return inside, h.Outside(inside)
}

// Outside is the path by which a file of the running host is reached from outside.
func (h *Host) Outside(path string) string {
	pid, _ := os.ReadFile(filepath.Join(h.Work, "state", h.Name, "pid"))
	return filepath.Join("/proc", strings.TrimSpace(string(pid)), "root", path)
}

// Lab runs the lab script.
func (h *Host) Lab(ctx context.Context, args ...string) (string, error) {
	c := exec.CommandContext(ctx, filepath.Join(h.Repo, "test/lab/lab"), args...)
	out, err := c.CombinedOutput()
	if err != nil {
		return string(out), fmt.Errorf("lab %s: %w: %s", strings.Join(args, " "), err, out)
	}
	return string(out), nil
}

// Run executes a command on the host as the agent's user and returns what it printed.
func (h *Host) Run(ctx context.Context, stdin string, args ...string) (stdout, stderr string, err error) {
	ctx, cancel := context.WithTimeout(ctx, runTimeout)
	defer cancel()
	c := exec.CommandContext(ctx, filepath.Join(h.Repo, "test/lab/lab"), append([]string{"exec", h.Name}, args...)...)
	var so, se bytes.Buffer
	c.Stdin, c.Stdout, c.Stderr = strings.NewReader(stdin), &so, &se
	c.WaitDelay = time.Second
	err = c.Run()
	return so.String(), se.String(), err
}

// Psctl runs kubectl (or psctl) on the host with the admin kubeconfig.
func (h *Host) Psctl(ctx context.Context, stdin string, args ...string) (stdout, stderr string, err error) {
	inside, _ := h.DataDir()
	return h.Run(ctx, stdin, append([]string{"env", "KUBECONFIG=" + inside + "/admin.kubeconfig", h.Client()}, args...)...)
}

// Client is the unmodified kubectl when there is one to be tested with, else psctl.
func (h *Host) Client() string {
	if k := h.Bin("kubectl"); fileExists(k) {
		return k
	}
	return h.Bin("psctl")
}

// Bin is the path of one of our programs. $LAB_BIN is where every user of a host can read them: a
// checkout may lie in a home directory that is closed to others.
func (h *Host) Bin(name string) string {
	if dir := os.Getenv("LAB_BIN"); dir != "" {
		return filepath.Join(dir, name)
	}
	return filepath.Join(h.Repo, "bin", name)
}

func (h *Host) program() string {
	if h.Program != "" {
		return h.Program
	}
	return h.Bin("podman-swarm")
}

func fileExists(path string) bool { _, err := os.Stat(path); return err == nil }

// StartAgent starts the agent on the host and waits until the API is ready.
func (h *Host) StartAgent(ctx context.Context, extra ...string) error {
	exited, err := h.launch(extra)
	if err != nil {
		return err
	}
	for {
		if h.Ready(ctx) {
			return nil
		}
		select {
		case err := <-exited:
			return fmt.Errorf("agent ended (%w): %s", err, h.TailLog(10))
		case <-ctx.Done():
			return fmt.Errorf("agent not ready: %w: %s", ctx.Err(), h.TailLog(20))
		case <-time.After(50 * time.Millisecond):
		}
	}
}

// Ready asks the host's API whether it is ready.
func (h *Host) Ready(ctx context.Context) bool {
	client, err := h.API()
	if err != nil { // the agent has not written the administrator's kubeconfig yet
		return false
	}
	_, err = client.RESTClient().Get().AbsPath("/readyz").DoRaw(ctx)
	return err == nil
}

// launch starts the agent with its log in AgentLog; the channel tells how it ended.
func (h *Host) launch(extra []string) (<-chan error, error) {
	if err := os.MkdirAll(filepath.Join(h.Work, "logs"), 0o755); err != nil {
		return nil, err
	}
	log, err := os.OpenFile(h.AgentLog(), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o644)
	if err != nil {
		return nil, err
	}
	defer log.Close()
	inside, _ := h.DataDir()
	args := []string{"exec", h.Name, h.program(), "agent", "--data-dir", inside, "--advertise-addr", h.Addr()}
	c := exec.Command(filepath.Join(h.Repo, "test/lab/lab"), append(args, extra...)...)
	c.Stdout, c.Stderr = log, log
	c.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	if err := c.Start(); err != nil {
		return nil, err
	}
	exited := make(chan error, 1)
	go func() { exited <- c.Wait() }()
	return exited, nil
}

// AgentLog is the file the agent logs to, seen from outside.
func (h *Host) AgentLog() string { return filepath.Join(h.Work, "logs", h.Name+".log") }

// TailLog returns the last lines of the agent log.
func (h *Host) TailLog(n int) string {
	b, _ := os.ReadFile(h.AgentLog())
	lines := strings.Split(strings.TrimSpace(string(b)), "\n")
	return strings.Join(lines[max(0, len(lines)-n):], "\n")
}

// Pids returns the processes of the host whose command line contains text.
func (h *Host) Pids(text string) []int {
	var out []int
	// container processes live in cgroups below; the agent and its helpers in the host's own
	b, _ := os.ReadFile("/sys/fs/cgroup/pids/lab/" + h.Name + "/cgroup.procs")
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

// SignalAgent sends a signal to the agent and waits until it has gone.
func (h *Host) SignalAgent(ctx context.Context, sig syscall.Signal) error {
	return h.End(ctx, sig, h.Pids("podman-swarm agent")...)
}

// End sends a signal to processes and waits until they have gone. A process that is dying has lost
// its command line long before its files and locks, so that is not asked.
func (h *Host) End(ctx context.Context, sig syscall.Signal, pids ...int) error {
	for _, pid := range pids {
		if err := syscall.Kill(pid, sig); err != nil && !errors.Is(err, syscall.ESRCH) {
			return fmt.Errorf("signal process %d: %w", pid, err)
		}
	}
	for _, pid := range pids {
		for fileExists(fmt.Sprintf("/proc/%d", pid)) {
			select {
			case <-ctx.Done():
				return fmt.Errorf("process %d does not end: %w", pid, ctx.Err())
			case <-time.After(10 * time.Millisecond):
			}
		}
	}
	return nil
}

// Config returns an administrator's client configuration that dials inside the host's network.
func (h *Host) Config() (*rest.Config, error) {
	_, outside := h.DataDir()
	cfg, err := clientcmd.BuildConfigFromFlags("", filepath.Join(outside, "admin.kubeconfig"))
	if err != nil {
		return nil, err
	}
	cfg.Dial = h.Dial
	cfg.QPS = -1
	return cfg, nil
}

// API is a clientset that is made once, so that asking often costs no handshakes.
func (h *Host) API() (*kubernetes.Clientset, error) {
	a, err := h.connect()
	if err != nil {
		return nil, err
	}
	return a.clientset, nil
}

func (h *Host) connect() (*api, error) {
	_, outside := h.DataDir()
	kubeconfig, err := os.ReadFile(filepath.Join(outside, "admin.kubeconfig"))
	if err != nil {
		return nil, err
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.api != nil && bytes.Equal(h.api.kubeconfig, kubeconfig) {
		return h.api, nil
	}
	a := &api{kubeconfig: kubeconfig}
	if a.config, err = h.Config(); err != nil {
		return nil, err
	}
	if a.http, err = rest.HTTPClientFor(a.config); err != nil {
		return nil, err
	}
	if a.clientset, err = kubernetes.NewForConfigAndClient(a.config, a.http); err != nil {
		return nil, err
	}
	h.api = a
	return a, nil
}

// Get asks the host's API for a path and decodes the JSON it answers.
func (h *Host) Get(ctx context.Context, path string, into any) error {
	client, err := h.API()
	if err != nil {
		return err
	}
	out, err := client.RESTClient().Get().AbsPath(path).DoRaw(ctx)
	if err != nil {
		return fmt.Errorf("ask %s for %s: %w", h.Name, path, err)
	}
	if err := json.Unmarshal(out, into); err != nil {
		return fmt.Errorf("%s answers to %s: %w: %s", h.Name, path, err, out)
	}
	return nil
}

// Clientset is Config as a clientset with connections of its own.
func (h *Host) Clientset() (*kubernetes.Clientset, error) {
	cfg, err := h.Config()
	if err != nil {
		return nil, err
	}
	return kubernetes.NewForConfig(cfg)
}

// Dial connects from inside the host's network namespace: the thread visits it for the call.
func (h *Host) Dial(ctx context.Context, network, addr string) (net.Conn, error) {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	home, err := netns.Get()
	if err != nil {
		return nil, err
	}
	defer home.Close()
	there, err := netns.GetFromName("lab-" + h.Name)
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
