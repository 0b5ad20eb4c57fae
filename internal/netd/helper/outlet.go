package helper

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"sync"
	"syscall"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/podman-swarm/podman-swarm/internal/netd/wire"
)

// The outlet's network, inside the pod network's namespace when rootless: a range set aside for
// benchmarks (RFC 2544), which no machine should have on its real network.
const (
	outletDevice = "tap0"
	outletCIDR   = "198.19.255.0/24"
	outletAddr   = "198.19.255.100"
	OutletRouter = "198.19.255.2"

	outletTimeout = 10 * time.Second
)

// outlet keeps the program running that connects the rootless pod network to the outside. That
// program outlives the helper; the next one goes on with it.
type outlet struct {
	net  *network
	note func(slog.Level, string, error)

	mu   sync.Mutex
	proc Process
	exit *os.File
	end  bool
	done chan struct{}
}

func outletArgs(name, ns string) []string {
	if name == "slirp4netns" {
		return []string{
			"-c", "-m", "65520", "--cidr=" + outletCIDR, "--disable-host-loopback", "--enable-sandbox",
			"--enable-seccomp", "--netns-type=path", ns, outletDevice,
		}
	}
	return []string{
		"--foreground", "--quiet", "--config-net", "-4", "-I", outletDevice, "-a", outletAddr, "-n", "24",
		"-g", OutletRouter, "--no-map-gw", "-t", "none", "-u", "none", "-T", "none", "-U", "none", "-D", "none",
		"--netns-only", "--runas", "0", "--netns", ns,
	}
}

// openOutlet adopts the running program or starts one, waits until it works, and keeps it running.
func openOutlet(ctx context.Context, n *network, note func(slog.Level, string, error)) (*outlet, error) {
	o := &outlet{net: n, note: note, done: make(chan struct{})}
	if n.fresh {
		stopOutlet(n.Setup) // one of a namespace that is gone
	}
	if err := o.ensure(ctx); err != nil {
		return nil, fmt.Errorf("connect the pod network to the outside: %w", err)
	}
	go o.keep(ctx)
	return o, nil
}

// ensure sets exit to a watch on a running program.
func (o *outlet) ensure(ctx context.Context) error {
	if p, ok := LoadProcess(o.net.File("outlet")); ok {
		exit, err := p.watchExit()
		if err == nil {
			return o.set(p, exit)
		}
	}
	p, err := o.start()
	if err != nil {
		return err
	}
	exit, err := p.watchExit()
	if err == nil {
		err = o.set(p, exit)
	}
	if err == nil {
		err = o.ready(ctx)
	}
	if err != nil {
		words, _ := os.ReadFile(o.net.File("outlet.log"))
		return fmt.Errorf("%w: %s", err, bytes.TrimSpace(words))
	}
	return nil
}

func (o *outlet) set(p Process, exit *os.File) error {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.end {
		return errors.Join(os.ErrClosed, exit.Close())
	}
	o.proc, o.exit = p, exit
	return nil
}

// start starts the program, from the helper's own namespace, which is the host's.
func (o *outlet) start() (Process, error) {
	name, path, err := wire.FindOutlet()
	if err != nil {
		return Process{}, err
	}
	// A file and no pipe: it must be able to write when we are gone.
	log, err := os.OpenFile(o.net.File("outlet.log"), os.O_CREATE|os.O_WRONLY|os.O_TRUNC, 0o600)
	if err != nil {
		return Process{}, err
	}
	defer func() { _ = log.Close() }()
	null, err := os.Open(os.DevNull)
	if err != nil {
		return Process{}, err
	}
	defer func() { _ = null.Close() }()
	child, err := os.StartProcess(path, append([]string{path}, outletArgs(name, o.net.Home())...), &os.ProcAttr{
		Dir: "/", Files: []*os.File{null, log, log}, Sys: &syscall.SysProcAttr{Setsid: true},
	})
	if err != nil {
		return Process{}, fmt.Errorf("start %s: %w", name, err)
	}
	// Reaps it if it ends before us; otherwise ends with this process.
	go func() { _, _ = child.Wait() }()
	p, err := Identify(child.Pid)
	if err != nil {
		return Process{}, fmt.Errorf("%s ended at once", name)
	}
	return p, p.Save(o.net.File("outlet"))
}

// ready waits for the default route that the program makes as its last act.
func (o *outlet) ready(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, outletTimeout)
	defer cancel()
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for {
		routes, err := o.net.nl.RouteListFiltered(netlink.FAMILY_V4, &netlink.Route{Dst: nil}, netlink.RT_FILTER_DST)
		if err == nil && len(routes) > 0 {
			return nil
		}
		if !o.proc.alive() {
			return errors.New("the program ended")
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("no default route after %s", outletTimeout)
		case <-tick.C:
		}
	}
}

// keep starts the program anew whenever it ends, after a pause that grows with its failures.
func (o *outlet) keep(ctx context.Context) {
	defer close(o.done)
	for {
		err := awaitExit(o.exit)
		if o.closing() || ctx.Err() != nil {
			return
		}
		o.note(slog.LevelWarn, "the pod network's way to the outside ended, starting it again", err)
		_ = o.exit.Close()
		for pause := time.Duration(0); ; pause = min(2*pause+100*time.Millisecond, 30*time.Second) {
			select {
			case <-ctx.Done():
				return
			case <-time.After(pause):
			}
			if err = o.ensure(ctx); err == nil {
				break
			}
			if o.closing() {
				return
			}
			o.note(slog.LevelError, "the pod network has no way to the outside", err)
		}
	}
}

func (o *outlet) closing() bool {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.end
}

// close stops watching; the program runs on. The context of openOutlet must have ended.
func (o *outlet) close() {
	o.mu.Lock()
	o.end = true
	_ = o.exit.Close()
	o.mu.Unlock()
	<-o.done
}

// stopOutlet ends the program and waits until it is gone; none is fine.
func stopOutlet(s wire.Setup) {
	if p, ok := LoadProcess(s.File("outlet")); ok {
		if exit, err := p.watchExit(); err == nil {
			_ = exit.SetReadDeadline(time.Now().Add(2 * time.Second))
			_ = unix.Kill(p.PID, unix.SIGTERM)
			if awaitExit(exit) != nil {
				_ = unix.Kill(p.PID, unix.SIGKILL)
			}
			_ = exit.Close()
		}
	}
	_ = os.Remove(s.File("outlet"))
	_ = os.Remove(s.File("outlet.log"))
}
