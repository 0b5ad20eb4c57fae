package netd

import (
	"fmt"
	"net"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/podman-swarm/podman-swarm/internal/netd/helper"
	"github.com/podman-swarm/podman-swarm/internal/netd/wire"
)

// traces counts what pods leave: links, routes, neighbours, pins, descriptors and threads of the
// helper.
func traces(t *testing.T, cfg Config) map[string]int {
	t.Helper()
	pids := helperPIDs(t, cfg)
	if len(pids) != 1 {
		t.Fatalf("helpers %v, want one", pids)
	}
	fds := inNet(t, cfg, "ls", fmt.Sprintf("/proc/%d/fd", pids[0]))
	mounts, err := os.ReadFile(fmt.Sprintf("/proc/%d/mountinfo", pids[0]))
	if err != nil {
		t.Fatal(err)
	}
	files, err := os.ReadDir(cfg.setup().Dir())
	if err != nil {
		t.Fatal(err)
	}
	return map[string]int{
		"links":       strings.Count(inNet(t, cfg, "ip", "-o", "link"), "\n"),
		"routes":      strings.Count(inNet(t, cfg, "ip", "-4", "route", "show", "table", "all"), "\n"),
		"neighbours":  strings.Count(inNet(t, cfg, "ip", "neigh", "show", "nud", "permanent"), "\n"),
		"descriptors": strings.Count(fds, "\n"),
		"mounts":      strings.Count(string(mounts), cfg.setup().Dir()),
		"files":       len(files),
	}
}

// TestChurn attaches and detaches 300 pods, eight at a time, and finds everything as it was.
func TestChurn(t *testing.T) {
	cfg := testConfig(t)
	n := start(t, cfg)
	add(t, n, "stays")
	echo(t, n, "stays", "0.0.0.0:80")
	churn := func(cycles int) {
		var work sync.WaitGroup
		for w := range 8 {
			work.Go(func() {
				for i := w; i < cycles; i += 8 {
					cycle(t, n, fmt.Sprintf("pod-%d", i))
				}
			})
		}
		work.Wait()
	}
	churn(16) // the helper's threads and sockets are there
	before := traces(t, cfg)
	churn(300)
	after := traces(t, cfg)
	for what := range before {
		if after[what] > before[what] {
			t.Errorf("%d %s, were %d; links now:\n%s", after[what], what, before[what], inNet(t, cfg, "ip", "link"))
		}
	}
	if list, err := n.List(t.Context()); err != nil || len(list) != 1 {
		t.Errorf("List: %v, %v", list, err)
	}
}

func cycle(t *testing.T, n *Net, id string) {
	t.Helper()
	a, err := n.Add(t.Context(), id)
	if err != nil {
		t.Error(err)
		return
	}
	if b, err := n.Add(t.Context(), id); err != nil || a != b {
		t.Errorf("Add again: %v, %v", b, err)
	}
	if conn, err := n.DialPod(t.Context(), id, "udp", 9); err != nil {
		t.Error(err)
	} else {
		_ = conn.Close()
	}
	if err := n.Remove(t.Context(), id); err != nil {
		t.Error(err)
	}
	if err := n.Remove(t.Context(), id); err != nil {
		t.Error("Remove again:", err)
	}
}

// TestSamePodAtOnce: many callers for one id, one result, and a consistent end.
func TestSamePodAtOnce(t *testing.T) {
	cfg := testConfig(t)
	n := start(t, cfg)
	var work sync.WaitGroup
	for i := range 16 {
		work.Go(func() {
			if i%2 == 0 {
				if _, err := n.Add(t.Context(), "pod-a"); err != nil {
					t.Error(err)
				}
			} else if err := n.Remove(t.Context(), "pod-a"); err != nil {
				t.Error(err)
			}
		})
	}
	work.Wait()
	a := add(t, n, "pod-a")
	echo(t, n, "pod-a", "0.0.0.0:80")
	if _, err := ask(t, n.DialContext, "tcp", a.IP.String()+":80"); err != nil {
		t.Error(err)
	}
}

// TestManyDials runs 400 dials at once through one helper.
func TestManyDials(t *testing.T) {
	cfg := testConfig(t)
	n := start(t, cfg)
	a := add(t, n, "pod-a")
	echo(t, n, "pod-a", "0.0.0.0:80")
	before := descriptors(t)
	var work sync.WaitGroup
	for range 400 {
		work.Go(func() {
			if _, err := ask(t, n.DialContext, "tcp", a.IP.String()+":80"); err != nil {
				t.Error(err)
			}
		})
	}
	work.Wait()
	eventually(t, "descriptors", func() error { // the echo's side closes a little later
		if after := descriptors(t); after > before {
			return fmt.Errorf("%d open, were %d", after, before)
		}
		return nil
	})
}

// TestPowerFailure: the pins are gone, their files and a pid that means another process are not.
func TestPowerFailure(t *testing.T) {
	cfg := testConfig(t)
	if err := os.MkdirAll(cfg.setup().Dir(), 0o700); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{wire.HomeName, "pod-a", "pod-b"} {
		if err := os.WriteFile(cfg.setup().Path(name), nil, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	me, err := helper.Identify(os.Getpid())
	if err != nil {
		t.Fatal(err)
	}
	me.Start++
	if err := me.Save(cfg.setup().File("outlet")); err != nil {
		t.Fatal(err)
	}
	n := start(t, cfg)
	if list, err := n.List(t.Context()); err != nil || len(list) != 0 {
		t.Errorf("List: %v, %v", list, err)
	}
	add(t, n, "pod-a")
}

// TestOutletKilled: the program that leads outside comes back by itself, also when it died while
// no helper was there to see it.
func TestOutletKilled(t *testing.T) {
	cfg := testConfig(t)
	if !cfg.Rootless {
		t.Skip("root needs no outlet")
	}
	n := start(t, cfg)
	add(t, n, "pod-a")
	l, err := net.Listen("tcp4", "0.0.0.0:0")
	if err != nil {
		t.Fatal(err)
	}
	var work sync.WaitGroup
	work.Go(func() { serveTCP(l, &work) })
	defer func() { _ = l.Close(); work.Wait() }()
	_, port, err := net.SplitHostPort(l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	addr := net.JoinHostPort(nodeAddr(t).String(), port)
	works := func() {
		t.Helper()
		deadline := time.Now().Add(10 * time.Second)
		for {
			if _, err := ask(t, from(n, "pod-a"), "tcp", addr); err == nil {
				return
			} else if time.Now().After(deadline) {
				t.Fatal(err)
			}
		}
	}
	works()
	kill := func() helper.Process {
		t.Helper()
		p, ok := helper.LoadProcess(cfg.setup().File("outlet"))
		if !ok {
			t.Fatal("no outlet")
		}
		if err := unix.Kill(p.PID, unix.SIGKILL); err != nil {
			t.Fatal(err)
		}
		return p
	}
	kill()
	works()
	n.Close()
	p, ok := helper.LoadProcess(cfg.setup().File("outlet"))
	if !ok {
		t.Fatal("the outlet ended with the helper")
	}
	n = start(t, cfg)
	if q, ok := helper.LoadProcess(cfg.setup().File("outlet")); !ok || p != q {
		t.Errorf("outlet %v was not adopted, there is %v", p, q)
	}
	kill()
	works()
	n.Close()
	kill()
	n = start(t, cfg)
	defer n.Close()
	works()
}
