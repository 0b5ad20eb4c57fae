package agent

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"

	"golang.org/x/sync/errgroup"

	"github.com/podman-swarm/podman-swarm/internal/agent/plan"
	"github.com/podman-swarm/podman-swarm/internal/agent/worker"
	"github.com/podman-swarm/podman-swarm/internal/podman"
	"github.com/podman-swarm/podman-swarm/internal/stream"
)

func seccompDir(dataDir string) string { return filepath.Join(dataDir, "seccomp") }

// serve answers the API server's requests for logs, exec and the like until ctx ends.
func (a *Agent) serve(ctx context.Context) error {
	if a.cfg.Listener == nil {
		return nil
	}
	h := stream.New(stream.Config{Backend: backend{a}, Log: a.cfg.Log})
	srv := &http.Server{Handler: h, ReadHeaderTimeout: callTimeout, IdleTimeout: 2 * time.Minute}
	g, ctx := errgroup.WithContext(ctx)
	g.Go(func() error {
		if err := srv.Serve(a.cfg.Listener); !errors.Is(err, http.ErrServerClosed) {
			return fmt.Errorf("serve streams: %w", err)
		}
		return nil
	})
	g.Go(func() error {
		<-ctx.Done()
		return errors.Join(srv.Close(), h.Close())
	})
	return g.Wait()
}

// backend is the node as package stream sees it.
type backend struct{ a *Agent }

var _ stream.Backend = backend{}

// Pod implements stream.Backend. The status is the one told last: the informer may lag behind.
func (b backend) Pod(namespace, name string) (*corev1.Pod, bool) {
	obj, ok, err := b.a.pods.GetByKey(namespace + "/" + name)
	if err != nil || !ok {
		return nil, false
	}
	pod, ok := obj.(*corev1.Pod)
	if !ok {
		return nil, false
	}
	return b.withStatus(pod), true
}

// Pods implements stream.Backend.
func (b backend) Pods() []*corev1.Pod {
	var out []*corev1.Pod
	for _, obj := range b.a.pods.List() {
		if pod, ok := obj.(*corev1.Pod); ok {
			out = append(out, b.withStatus(pod))
		}
	}
	return out
}

func (b backend) withStatus(pod *corev1.Pod) *corev1.Pod {
	b.a.mu.Lock()
	w := b.a.workers[pod.UID]
	b.a.mu.Unlock()
	if w == nil {
		return pod
	}
	if s := w.Base(pod); s != &pod.Status {
		pod = pod.DeepCopy()
		pod.Status = *s.DeepCopy()
	}
	return pod
}

// runningID finds the running attempt of a container.
func (b backend) runningID(c stream.Container) (string, error) {
	x := plan.Latest(b.a.host.Ledger.Of(c.Pod.UID), c.Name)
	if x == nil || x.State != plan.Running {
		return "", &stream.StatusError{
			Code: http.StatusBadRequest,
			Text: fmt.Sprintf("container %q of pod %s/%s is not running", c.Name, c.Pod.Namespace, c.Pod.Name),
		}
	}
	return x.ID, nil
}

// Exec implements stream.Backend.
func (b backend) Exec(ctx context.Context, c stream.Container, cmd []string, s stream.Streams) (int, error) {
	id, err := b.runningID(c)
	if err != nil {
		return 0, err
	}
	resize, stop := sizes(s.Resize)
	defer stop()
	return b.a.cfg.Runtime.Exec(ctx, id, podman.ExecConfig{
		Cmd: cmd, Stdin: s.Stdin, Stdout: s.Stdout, Stderr: s.Stderr, TTY: s.TTY, Resize: resize,
	})
}

// Attach implements stream.Backend.
func (b backend) Attach(ctx context.Context, c stream.Container, s stream.Streams) error {
	id, err := b.runningID(c)
	if err != nil {
		return err
	}
	resize, stop := sizes(s.Resize)
	defer stop()
	return b.a.cfg.Runtime.Attach(ctx, id, podman.AttachConfig{
		Stdin: s.Stdin, Stdout: s.Stdout, Stderr: s.Stderr, TTY: s.TTY, Resize: resize,
	})
}

// sizes translates terminal sizes until stopped; nil stays nil.
func sizes(in <-chan stream.Size) (<-chan podman.Size, func()) {
	if in == nil {
		return nil, func() {}
	}
	out, quit, done := make(chan podman.Size, 1), make(chan struct{}), make(chan struct{})
	go func() {
		defer close(done)
		for {
			select {
			case s, ok := <-in:
				if !ok {
					return
				}
				select {
				case out <- podman.Size(s):
				case <-quit:
					return
				}
			case <-quit:
				return
			}
		}
	}()
	return out, func() { close(quit); <-done }
}

// Dial implements stream.Backend.
func (b backend) Dial(ctx context.Context, pod *corev1.Pod, port uint16) (net.Conn, error) {
	if pod.Spec.HostNetwork {
		var d net.Dialer
		return d.DialContext(ctx, "tcp", net.JoinHostPort("127.0.0.1", strconv.Itoa(int(port))))
	}
	return b.a.cfg.Network.DialPod(ctx, string(pod.UID), "tcp", port)
}

// Log implements stream.Backend.
func (b backend) Log(_ context.Context, c stream.Container, previous bool) (stream.Log, error) {
	cid, err := stream.LogTarget(c.Pod, c.Name, previous)
	if err != nil {
		return stream.Log{}, err
	}
	id := strings.TrimPrefix(cid, plan.RuntimeName+"://")
	dir := filepath.Join(worker.LogDir(b.a.cfg.DataDir, c.Pod), c.Name)
	if e, ok := b.a.host.Ledger.Get(id); ok {
		l := stream.Log{Path: filepath.Join(dir, strconv.Itoa(e.Attempt)+".log")}
		if e.State == plan.Running {
			l.Ended = e.Ended
		}
		return l, nil
	}
	// The container is gone and its log is not: the status tells the attempt.
	for _, st := range append(append([]corev1.ContainerStatus{}, c.Pod.Status.ContainerStatuses...),
		c.Pod.Status.InitContainerStatuses...) {
		if st.Name != c.Name {
			continue
		}
		attempt := int(st.RestartCount)
		if strings.TrimPrefix(st.ContainerID, plan.RuntimeName+"://") != id {
			attempt--
		}
		if attempt >= 0 {
			return stream.Log{Path: filepath.Join(dir, strconv.Itoa(attempt)+".log")}, nil
		}
	}
	return stream.Log{}, &stream.StatusError{
		Code: http.StatusNotFound, Text: fmt.Sprintf("the log of container %q is gone", c.Name),
	}
}

// probeExec runs a command for a probe or a hook.
func (a *Agent) probeExec(ctx context.Context, id string, cmd []string) (int, []byte, error) {
	var out limited
	code, err := a.cfg.Runtime.Exec(ctx, id, podman.ExecConfig{Cmd: cmd, Stdout: &out, Stderr: &out})
	return code, out.b.Bytes(), err
}

// maxProbeOutput is what is kept of a probe's output.
const maxProbeOutput = 10 << 10

// limited keeps the beginning of what is written to it. Podman's streams arrive from one goroutine.
type limited struct{ b bytes.Buffer }

// Write implements io.Writer.
func (l *limited) Write(p []byte) (int, error) {
	if room := maxProbeOutput - l.b.Len(); room > 0 {
		l.b.Write(p[:min(len(p), room)])
	}
	return len(p), nil
}
