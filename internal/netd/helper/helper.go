package helper

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/netip"
	"os"
	"runtime/debug"
	"sync"
	"syscall"

	"golang.org/x/sys/unix"

	"github.com/podman-swarm/podman-swarm/internal/netd/wire"
)

// Main is the helper. Its standard input is a socket to the agent; it ends when the agent closes
// the other end or dies.
//
// With the arguments "detach DIR" it starts itself anew as "serve", in a session of its own, with
// its words going to DIR/netd.log, and returns: whatever launched it (podman unshare) can end.
func Main(ctx context.Context, args []string) error {
	switch {
	case len(args) == 2 && args[0] == "detach":
		return detach(os.Args[:len(os.Args)-len(args)], args[1])
	case len(args) == 1 && args[0] == "serve":
		debug.SetGCPercent(30) // small and idle: memory counts, not throughput
		f, err := wire.NewFrames(os.Stdin)
		if err != nil {
			return fmt.Errorf("the agent runs this, its standard input must be a unix socket: %w", err)
		}
		if err := releaseStdin(); err != nil {
			return err
		}
		return serve(ctx, f)
	}
	return errors.New("usage: the agent runs this with the arguments detach DIR")
}

func detach(self []string, dir string) error {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return err
	}
	log, err := os.OpenFile(wire.LogFile(dir), os.O_CREATE|os.O_WRONLY|os.O_TRUNC, 0o600)
	if err != nil {
		return err
	}
	child, err := os.StartProcess("/proc/self/exe", append(self, "serve"), &os.ProcAttr{
		Dir: "/", Env: os.Environ(), Files: []*os.File{os.Stdin, log, log}, Sys: &syscall.SysProcAttr{Setsid: true},
	})
	if err != nil {
		return err
	}
	return child.Release()
}

// releaseStdin puts /dev/null in place of the socket, which lives on as another descriptor, so
// that no program we start can inherit it and keep the agent waiting for our end.
func releaseStdin() error {
	null, err := os.Open(os.DevNull)
	if err != nil {
		return err
	}
	defer func() { _ = null.Close() }()
	return unix.Dup3(int(null.Fd()), 0, 0)
}

// helper answers one agent.
type helper struct {
	frames *wire.Frames
	work   sync.WaitGroup

	mu     sync.RWMutex
	net    *network
	pods   *pods
	outlet *outlet
}

// serve answers requests until the connection ends. Those that take time run at the same time;
// nothing but the first one can succeed before that is done.
func serve(ctx context.Context, f *wire.Frames) error {
	ctx, cancel := context.WithCancel(ctx)
	h := &helper{frames: f}
	defer h.close()
	defer h.work.Wait()
	defer cancel()
	for {
		b, fd, err := f.Receive()
		if errors.Is(err, io.EOF) || errors.Is(err, unix.ECONNRESET) {
			return nil
		}
		if err != nil {
			return fmt.Errorf("receive: %w", err)
		}
		wire.CloseFD(fd)
		r, err := wire.DecodeRequest(b)
		if err != nil {
			return err // the agent is another version, or not the agent
		}
		if r.Op == wire.OpSocket && r.ID == "" { // microseconds, and many
			h.answer(ctx, r)
			continue
		}
		h.work.Go(func() { h.answer(ctx, r) })
	}
}

func (h *helper) close() {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.outlet != nil {
		h.outlet.close()
	}
	if h.net != nil {
		h.net.close()
	}
}

func (h *helper) answer(ctx context.Context, r wire.Request) {
	out, fd := h.handle(ctx, r)
	defer wire.CloseFD(fd)
	out.Seq = r.Seq
	// An error means that the agent is gone: serve ends by itself.
	_ = h.frames.Send(out, fd)
}

func (h *helper) handle(ctx context.Context, r wire.Request) (wire.Reply, int) {
	fd := -1
	var out wire.Reply
	var err error
	switch r.Op {
	case wire.OpStart:
		err = h.start(ctx, *r.Setup)
		out.Sysctls = podSysctls()
	case wire.OpDestroy:
		err = destroy(ctx, *r.Setup)
	default:
		h.mu.RLock()
		defer h.mu.RUnlock()
		if h.pods == nil {
			return wire.Failure(errors.New("the pod network is not up")), -1
		}
		switch r.Op {
		case wire.OpAdd:
			var ip netip.Addr
			ip, err = h.pods.add(r.ID)
			out.Pods = []wire.PodRef{{ID: r.ID, IP: ip}}
		case wire.OpRemove:
			err = h.pods.remove(r.ID)
		case wire.OpList:
			out.Pods, out.More = h.pods.page(r.After)
		case wire.OpSocket:
			fd, err = h.socket(r)
		}
	}
	if err != nil {
		wire.CloseFD(fd)
		return wire.Failure(err), -1
	}
	return out, fd
}

func (h *helper) socket(r wire.Request) (int, error) {
	if r.ID != "" {
		if _, ok := h.pods.get(r.ID); !ok {
			return -1, fmt.Errorf("%w: %s", wire.ErrNoPod, r.ID)
		}
	}
	return h.net.socket(r.ID, r.Network)
}

// start brings the network up. It fails if that was done.
func (h *helper) start(ctx context.Context, s wire.Setup) (err error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.net != nil {
		return errors.New("the pod network is up already")
	}
	n, err := openNetwork(s, true)
	if err != nil {
		return err
	}
	defer func() {
		if err != nil {
			n.close()
		}
	}()
	if err := n.up(ctx); err != nil {
		return err
	}
	warning, err := openFirewall(ctx, s)
	if err != nil {
		return err
	}
	if warning != "" {
		h.note(slog.LevelWarn, warning, nil)
	}
	p, errs := adopt(n)
	if p == nil {
		return errors.Join(errs...)
	}
	if err := errors.Join(errs...); err != nil {
		h.note(slog.LevelWarn, "leftovers of the pod network could not be removed", err)
	}
	if s.Rootless {
		if h.outlet, err = openOutlet(ctx, n, h.note); err != nil {
			return err
		}
	}
	h.net, h.pods = n, p
	return nil
}

// note sends a line to the agent's log.
func (h *helper) note(level slog.Level, text string, err error) {
	line := &wire.LogLine{Level: level, Text: text}
	if err != nil {
		line.Err = err.Error()
	}
	_ = h.frames.Send(wire.Reply{Log: line}, -1)
}
