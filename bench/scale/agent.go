package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync/atomic"
	"syscall"
	"time"

	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/tools/clientcmd"
)

// agent is one node: a process with an address of its own.
type agent struct {
	name, addr, dir string
	cmd             *exec.Cmd
	exited          chan struct{}
	killed          atomic.Bool // by this program
	client          *kubernetes.Clientset
}

const (
	peerPort = "7946"
	// startTime bounds the start of a node on a machine that is busy with all others.
	startTime = 2 * time.Minute
	poll      = 20 * time.Millisecond
)

// start runs the agent of the i-th node, from 1 on.
func (s *scale) start(i int, flags ...string) (*agent, error) {
	a := &agent{name: fmt.Sprintf("n%d", i), addr: fmt.Sprintf("127.0.1.%d", i), exited: make(chan struct{})}
	a.dir = filepath.Join(s.dir, a.name)
	if i > 1 { // the documents are the same everywhere: 50 children would build them at the same time
		if err := os.CopyFS(filepath.Join(a.dir, documents), os.DirFS(filepath.Join(s.agents[0].dir, documents))); err != nil {
			return nil, err
		}
	}
	log, err := os.Create(filepath.Join(s.dir, a.name+".log"))
	if err != nil {
		return nil, err
	}
	defer log.Close()
	args := []string{
		"agent", "--runtime", "hollow", "--data-dir", a.dir, "--node-name", a.name, "--advertise-addr", a.addr,
		"--bind-addr", a.addr + ":" + peerPort, "--api-addr", a.addr + ":6443",
	}
	if s.profiles != "" {
		args = append(args, "--pprof-addr", a.addr+":6060")
	}
	a.cmd = exec.Command(s.bin, append(args, flags...)...)
	a.cmd.Stdout, a.cmd.Stderr = log, log
	a.cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true} // an interrupt is ours to pass on
	if err := a.cmd.Start(); err != nil {
		return nil, err
	}
	s.agents = append(s.agents, a)
	go func() {
		err := a.cmd.Wait()
		if !a.killed.Load() {
			say("%s ended by itself: %v", a.name, err)
		}
		close(a.exited)
	}()
	return a, nil
}

func (a *agent) pid() int { return a.cmd.Process.Pid }

func (a *agent) kill() {
	a.killed.Store(true)
	_ = a.cmd.Process.Kill()
}

// alive tells whether the agent was neither killed nor has it ended.
func (a *agent) alive() bool {
	select {
	case <-a.exited:
		return false
	default:
		return true
	}
}

// end stops all agents, by their ids.
func (s *scale) end() {
	for _, a := range s.agents {
		a.kill()
	}
	for _, a := range s.agents {
		<-a.exited
	}
}

// wait asks until the answer is yes.
func (a *agent) wait(ctx context.Context, what string, ok func(context.Context) bool) error {
	ctx, cancel := context.WithTimeoutCause(ctx, startTime, fmt.Errorf("%s: not %s within %s", a.name, what, startTime))
	defer cancel()
	for !ok(ctx) {
		select {
		case <-time.After(poll):
		case <-a.exited:
			return fmt.Errorf("%s ended: see its log", a.name)
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
	return nil
}

// connect makes the client as soon as the node has written its kubeconfig.
func (a *agent) connect(ctx context.Context) error {
	file := filepath.Join(a.dir, "admin.kubeconfig")
	if err := a.wait(ctx, "serving", func(context.Context) bool { _, err := os.Stat(file); return err == nil }); err != nil {
		return err
	}
	cfg, err := clientcmd.BuildConfigFromFlags("", file)
	if err != nil {
		return err
	}
	cfg.QPS = -1
	a.client, err = kubernetes.NewForConfig(cfg)
	return err
}

// token makes a token for all others.
func (s *scale) token(ctx context.Context) (string, error) {
	out, err := exec.CommandContext(ctx, s.bin, "token", "create", "--uses", "0", "--data-dir", s.agents[0].dir).Output()
	if err != nil {
		var exit *exec.ExitError
		if errors.As(err, &exit) {
			err = fmt.Errorf("%w: %s", err, exit.Stderr)
		}
		return "", fmt.Errorf("token create: %w", err)
	}
	words := strings.Fields(string(out))
	if len(words) == 0 {
		return "", errors.New("token create printed nothing")
	}
	return words[len(words)-1], nil
}
