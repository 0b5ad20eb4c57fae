package netd

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/podman-swarm/podman-swarm/internal/netd/helper"
)

// echo serves in a pod: what comes in goes back, after the peer's address and a line break.
func echo(t *testing.T, n *Net, id, addr string) {
	t.Helper()
	replace := n.replace(id)
	c := net.ListenConfig{Control: func(network, addr string, raw syscall.RawConn) error {
		return replace(t.Context(), network, addr, raw)
	}}
	l, err := c.Listen(t.Context(), "tcp4", addr)
	if err != nil {
		t.Fatal(err)
	}
	pc, err := c.ListenPacket(t.Context(), "udp4", addr)
	if err != nil {
		t.Fatal(err)
	}
	var work sync.WaitGroup
	work.Go(func() { serveTCP(l, &work) })
	work.Go(func() { serveUDP(pc) })
	t.Cleanup(func() { _, _ = l.Close(), pc.Close(); work.Wait() })
}

func serveTCP(l net.Listener, work *sync.WaitGroup) {
	for {
		conn, err := l.Accept()
		if err != nil {
			return
		}
		work.Go(func() {
			defer conn.Close()
			_ = conn.SetDeadline(time.Now().Add(time.Minute))
			fmt.Fprintln(conn, addrOf(conn.RemoteAddr()))
			// Plain reads and writes: splicing keeps a store of pipes, and tests count descriptors.
			_, _ = io.Copy(struct{ io.Writer }{conn}, struct{ io.Reader }{conn})
		})
	}
}

func serveUDP(pc net.PacketConn) {
	b := make([]byte, udpPacket)
	for {
		n, peer, err := pc.ReadFrom(b)
		if err != nil {
			return
		}
		_, _ = pc.WriteTo(append([]byte(addrOf(peer).String()+"\n"), b[:n]...), peer)
	}
}

func addrOf(a net.Addr) netip.Addr { return netip.MustParseAddrPort(a.String()).Addr().Unmap() }

// ask sends "hi" from inside a pod, the pod network or, with a nil dial, this host, and returns the
// address that the echo saw.
func ask(t *testing.T, dial dialFunc, network, addr string) (string, error) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
	defer cancel()
	if dial == nil {
		dial = new(net.Dialer).DialContext
	}
	conn, err := dial(ctx, network, addr)
	if err != nil {
		return "", err
	}
	defer conn.Close()
	_ = conn.SetDeadline(time.Now().Add(5 * time.Second))
	if _, err := io.WriteString(conn, "hi"); err != nil {
		return "", err
	}
	var b []byte
	if tcp, ok := conn.(*net.TCPConn); ok {
		_ = tcp.CloseWrite()
		b, err = io.ReadAll(conn)
	} else {
		b = make([]byte, 100)
		var n int
		n, err = conn.Read(b)
		b = b[:n]
	}
	from, rest, _ := strings.Cut(string(b), "\n")
	if err == nil && rest != "hi" {
		err = fmt.Errorf("answer %q", b)
	}
	return from, err
}

type dialFunc = func(ctx context.Context, network, addr string) (net.Conn, error)

// from dials as a process of the pod would.
func from(n *Net, id string) dialFunc {
	d := net.Dialer{ControlContext: n.replace(id)}
	return func(ctx context.Context, network, addr string) (net.Conn, error) {
		network, err := family(network, addr)
		if err != nil {
			return nil, err
		}
		return d.DialContext(ctx, network, addr)
	}
}

func TestReach(t *testing.T) {
	cfg := testConfig(t)
	n := start(t, cfg)
	defer n.Close()
	a, b := add(t, n, "pod-a"), add(t, n, "pod-b")
	if a.IP == b.IP || !cfg.PodCIDR.Contains(a.IP) || a.NetNS == b.NetNS {
		t.Fatalf("attachments %v and %v", a, b)
	}
	echo(t, n, "pod-a", "0.0.0.0:80") // also: a port below 1024
	echo(t, n, "pod-b", "127.0.0.1:8081")
	l, err := n.Listen(t.Context(), "tcp", n.Gateway().String()+":5353")
	if err != nil {
		t.Fatal(err)
	}
	var work sync.WaitGroup
	work.Go(func() { serveTCP(l, &work) })
	t.Cleanup(func() { _ = l.Close(); work.Wait() })
	at := func(ip netip.Addr, port uint16) string { return netip.AddrPortFrom(ip, port).String() }
	for _, c := range []struct {
		name, network, addr, want string
		dial                      dialFunc
	}{
		{"pod to pod", "tcp", at(a.IP, 80), b.IP.String(), from(n, "pod-b")},
		{"pod to pod", "udp", at(a.IP, 80), b.IP.String(), from(n, "pod-b")},
		{"pod to itself", "tcp", at(a.IP, 80), a.IP.String(), from(n, "pod-a")},
		{"broker to pod", "tcp", at(a.IP, 80), n.Gateway().String(), n.DialContext},
		{"broker to pod", "udp", at(a.IP, 80), n.Gateway().String(), n.DialContext},
		{"port-forward", "tcp", at(b.IP, 8081), "127.0.0.1", func(ctx context.Context, network, _ string) (net.Conn, error) {
			return n.DialPod(ctx, "pod-b", network, 8081)
		}},
		{"pod to gateway", "tcp", at(n.Gateway(), 5353), b.IP.String(), from(n, "pod-b")},
	} {
		t.Run(c.name+" "+c.network, func(t *testing.T) {
			got, err := ask(t, c.dial, c.network, c.addr)
			if err != nil {
				t.Fatal(err)
			}
			if got != c.want {
				t.Errorf("seen as %s, want %s", got, c.want)
			}
		})
	}
	t.Run("refused", func(t *testing.T) {
		if _, err := ask(t, n.DialContext, "tcp", at(b.IP, 8081)); !errors.Is(err, unix.ECONNREFUSED) {
			t.Errorf("127.0.0.1 of a pod from outside: %v", err)
		}
		if _, err := n.DialPod(t.Context(), "pod-c", "tcp", 80); !errors.Is(err, ErrNoPod) {
			t.Errorf("unknown pod: %v", err)
		}
		if _, err := ask(t, n.DialContext, "tcp", at(cfg.PodCIDR.Addr().Next().Next().Next().Next().Next(), 80)); !errors.Is(err, unix.EHOSTUNREACH) {
			t.Errorf("an address without a pod: %v", err)
		}
	})
}

// TestNode reaches the node by its own address, as pods reach the API server, with their own
// source address when rootful, and answers from the host to published ports.
func TestNode(t *testing.T) {
	cfg := testConfig(t)
	n := start(t, cfg)
	defer n.Close()
	a := add(t, n, "pod-a")
	node := nodeAddr(t)
	l, err := net.Listen("tcp4", "0.0.0.0:0")
	if err != nil {
		t.Fatal(err)
	}
	var work sync.WaitGroup
	work.Go(func() { serveTCP(l, &work) })
	defer func() { _ = l.Close(); work.Wait() }()
	port := netip.MustParseAddrPort(l.Addr().String()).Port()
	got, err := ask(t, from(n, "pod-a"), "tcp", netip.AddrPortFrom(node, port).String())
	if err != nil {
		t.Fatal(err)
	}
	if want := map[bool]netip.Addr{true: node, false: a.IP}[cfg.Rootless]; got != want.String() {
		t.Errorf("the node sees %s, want %s", got, want)
	}
	if !cfg.Rootless {
		return
	}
	if out := inNet(t, cfg, "ip", "-4", "-o", "addr"); strings.Contains(out, node.String()) {
		t.Errorf("the node's address is in the pod network too:\n%s", out)
	}
	loop := netip.AddrPortFrom(netip.MustParseAddr(helper.OutletRouter), port).String()
	if _, err := ask(t, from(n, "pod-a"), "tcp", loop); err == nil {
		t.Error("a pod reaches the host's localhost")
	}
}

// nodeAddr is the address a host would use toward the world. Nothing is sent.
func nodeAddr(t *testing.T) netip.Addr {
	t.Helper()
	conn, err := net.Dial("udp4", "192.0.2.1:9")
	if err != nil {
		t.Skip("this host has no address to be reached by: ", err)
	}
	defer conn.Close()
	return addrOf(conn.LocalAddr())
}

func TestKeepsAddresses(t *testing.T) {
	cfg := testConfig(t)
	n := start(t, cfg)
	a, b := add(t, n, "pod-a"), add(t, n, "pod-b")
	if again := add(t, n, "pod-a"); again != a {
		t.Errorf("Add again: %v, was %v", again, a)
	}
	if err := n.Remove(t.Context(), "pod-b"); err != nil {
		t.Fatal(err)
	}
	echo(t, n, "pod-a", "0.0.0.0:80")
	n.Close()
	if pids := helperPIDs(t, cfg); len(pids) != 0 {
		t.Errorf("helpers %v live after Close", pids)
	}
	n = start(t, cfg)
	defer n.Close()
	if list, err := n.List(t.Context()); err != nil || !slices.Equal(list, []Attachment{a}) {
		t.Errorf("List after a restart: %v, %v; want %v", list, err, a)
	}
	if again := add(t, n, "pod-a"); again != a {
		t.Errorf("Add after a restart: %v, was %v", again, a)
	}
	if c := add(t, n, "pod-c"); c.IP == b.IP {
		t.Errorf("%s came back at once after a restart", b.IP)
	}
	if got, err := ask(t, n.DialContext, "tcp", a.IP.String()+":80"); err != nil || got != n.Gateway().String() {
		t.Errorf("the pod's listener after a restart: seen as %s, %v", got, err)
	}
}

// TestHelperKilled kills the helper while two pods talk: not one byte is lost, Dead fires, calls
// fail with ErrLost, and the next Start finds everything.
func TestHelperKilled(t *testing.T) {
	cfg := testConfig(t)
	n := start(t, cfg)
	a, b := add(t, n, "pod-a"), add(t, n, "pod-b")
	echo(t, n, "pod-a", "0.0.0.0:80")
	conn, err := from(n, "pod-b")(t.Context(), "tcp", a.IP.String()+":80")
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	_ = conn.SetDeadline(time.Now().Add(20 * time.Second))
	ping := func() {
		t.Helper()
		if _, err := io.WriteString(conn, "ping"); err != nil {
			t.Fatal(err)
		}
		if _, err := io.ReadFull(conn, make([]byte, 4)); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := io.ReadFull(conn, make([]byte, len(b.IP.String())+1)); err != nil {
		t.Fatal(err)
	}
	ping()
	pids := helperPIDs(t, cfg)
	if len(pids) != 1 {
		t.Fatalf("helpers %v, want one", pids)
	}
	if err := unix.Kill(pids[0], unix.SIGKILL); err != nil {
		t.Fatal(err)
	}
	<-n.Dead()
	ping()
	if _, err := n.Add(t.Context(), "pod-c"); !errors.Is(err, ErrLost) {
		t.Errorf("Add without a helper: %v", err)
	}
	if _, err := n.DialContext(t.Context(), "tcp", a.IP.String()+":80"); !errors.Is(err, ErrLost) {
		t.Errorf("DialContext without a helper: %v", err)
	}
	n.Close()
	n = start(t, cfg)
	defer n.Close()
	ping()
	if list, err := n.List(t.Context()); err != nil || !slices.Equal(list, []Attachment{a, b}) {
		t.Errorf("List: %v, %v", list, err)
	}
}

// TestHalfMade leaves what a crash may leave and finds it gone after Start.
func TestHalfMade(t *testing.T) {
	cfg := testConfig(t)
	n := start(t, cfg)
	whole, noRoute, noLink := add(t, n, "whole"), add(t, n, "no-route"), add(t, n, "no-link")
	before := inNet(t, cfg, "ip", "-o", "link")
	n.Close()
	inNet(t, cfg, "ip", "route", "del", noRoute.IP.String())
	inNet(t, cfg, "ip", "link", "del", helper.LinkName(noLink.ID))
	inNet(t, cfg, "ip", "link", "add", helper.LinkName("no-ns"), "alias", "no-ns", "type", "veth", "peer", "name", "x")
	if err := os.WriteFile(cfg.setup().Path("no-mount"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	n = start(t, cfg)
	defer n.Close()
	if list, err := n.List(t.Context()); err != nil || !slices.Equal(list, []Attachment{whole}) {
		t.Errorf("List: %v, %v; want %v", list, err, whole)
	}
	after := inNet(t, cfg, "ip", "-o", "link")
	if got, want := strings.Count(after, "\n"), strings.Count(before, "\n")-2; got != want {
		t.Errorf("%d links, want %d:\n%s", got, want, after)
	}
	files, err := os.ReadDir(cfg.setup().Dir())
	if err != nil || len(files) != map[bool]int{false: 1, true: 2}[cfg.Rootless] {
		t.Errorf("files %v, %v", files, err)
	}
	if again := add(t, n, "no-link"); again.IP == whole.IP {
		t.Errorf("address %s twice", again.IP)
	}
}

func TestExhausted(t *testing.T) {
	cfg := testConfig(t)
	cfg.PodCIDR = netip.MustParsePrefix("10.244.7.0/29")
	n := start(t, cfg)
	defer n.Close()
	for i := range 5 {
		add(t, n, fmt.Sprintf("pod-%d", i))
	}
	_, err := n.Add(t.Context(), "one-more")
	if !errors.Is(err, ErrExhausted) || !strings.Contains(err.Error(), "10.244.7.0/29 (5 in use)") {
		t.Errorf("Add to a full range: %v", err)
	}
	if err := n.Remove(t.Context(), "pod-3"); err != nil {
		t.Fatal(err)
	}
	add(t, n, "one-more")
}

// TestSecondNode refuses to share a host's network with another node.
func TestSecondNode(t *testing.T) {
	cfg := testConfig(t)
	if cfg.Rootless {
		t.Skip("rootless nodes each have a namespace of their own")
	}
	n := start(t, cfg)
	defer n.Close()
	other := cfg
	other.RunDir = t.TempDir()
	_, err := Start(t.Context(), other)
	if err == nil || !strings.Contains(err.Error(), "belongs to the node of") {
		t.Errorf("a second node: %v", err)
	}
	if err := Destroy(t.Context(), other); err == nil {
		t.Error("the second node destroyed the first one's network")
	}
	add(t, n, "pod-a")
}
