package netd

import (
	"context"
	"errors"
	"io"
	"net"
	"net/netip"
	"os"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

func publish(t *testing.T, n *Net, p HostPort) io.Closer {
	t.Helper()
	c, err := n.Publish(t.Context(), p)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.Close() })
	return c
}

// freePort is one that nobody listens on, for either protocol.
func freePort(t *testing.T) uint16 {
	t.Helper()
	for {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		ap := netip.MustParseAddrPort(l.Addr().String())
		pc, err := net.ListenPacket("udp4", ap.String())
		_ = l.Close()
		if err == nil {
			_ = pc.Close()
			return ap.Port()
		}
	}
}

func TestPublish(t *testing.T) {
	cfg := testConfig(t)
	n := start(t, cfg)
	a := add(t, n, "pod-a")
	echo(t, n, "pod-a", "0.0.0.0:80")
	port := freePort(t)
	for _, proto := range []string{"TCP", "UDP"} {
		hp := HostPort{Port: port, Protocol: proto, PodIP: a.IP, PodPort: 80}
		closer := publish(t, n, hp)
		for _, ip := range []netip.Addr{netip.MustParseAddr("127.0.0.1"), nodeAddr(t)} {
			addr := netip.AddrPortFrom(ip, port).String()
			got, err := ask(t, nil, strings.ToLower(proto), addr)
			if err != nil || got != n.Gateway().String() {
				t.Errorf("%s %s: seen as %s, %v", proto, addr, got, err)
			}
		}
		_, err := n.Publish(t.Context(), hp)
		if !errors.Is(err, unix.EADDRINUSE) || !strings.HasPrefix(err.Error(), hp.String()+" is in use already") {
			t.Errorf("%s twice: %v", proto, err)
		}
		if err := closer.Close(); err != nil {
			t.Error(err)
		}
		if _, err := ask(t, nil, strings.ToLower(proto), netip.AddrPortFrom(nodeAddr(t), port).String()); !errors.Is(err, unix.ECONNREFUSED) {
			t.Errorf("%s after Close: %v", proto, err)
		}
		publish(t, n, hp) // the port is free again
	}
	t.Run("errors", func(t *testing.T) {
		for want, hp := range map[string]HostPort{
			"cannot be published": {Port: port, Protocol: "SCTP", PodIP: a.IP, PodPort: 80},
			"no such address":     {IP: netip.MustParseAddr("192.0.2.7"), Port: port, Protocol: "TCP", PodIP: a.IP, PodPort: 80},
		} {
			if _, err := n.Publish(t.Context(), hp); err == nil || !strings.Contains(err.Error(), want) {
				t.Errorf("%v: %v, want ...%s...", hp, err, want)
			}
		}
	})
	t.Run("nobody listens in the pod", func(t *testing.T) {
		hp := HostPort{Port: freePort(t), Protocol: "TCP", PodIP: a.IP, PodPort: 81}
		publish(t, n, hp)
		if _, err := ask(t, nil, "tcp", netip.AddrPortFrom(nodeAddr(t), hp.Port).String()); err == nil {
			t.Error("an empty answer instead of an error")
		}
	})
}

// TestPublishClosesConnections: Close ends what runs, in either protocol.
func TestPublishClosesConnections(t *testing.T) {
	cfg := testConfig(t)
	n := start(t, cfg)
	a := add(t, n, "pod-a")
	echo(t, n, "pod-a", "0.0.0.0:80")
	hp := HostPort{IP: netip.MustParseAddr("127.0.0.1"), Port: freePort(t), Protocol: "TCP", PodIP: a.IP, PodPort: 80}
	closer := publish(t, n, hp)
	conn, err := net.Dial("tcp", netip.AddrPortFrom(hp.IP, hp.Port).String())
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	_ = conn.SetDeadline(time.Now().Add(5 * time.Second))
	if _, err := conn.Read(make([]byte, 1)); err != nil {
		t.Fatal(err)
	}
	if err := closer.Close(); err != nil {
		t.Fatal(err)
	}
	if _, err := io.Copy(io.Discard, conn); errors.Is(err, os.ErrDeadlineExceeded) {
		t.Error("the connection lives on")
	}
}

// TestUDPSessions: a client that falls silent is forgotten, one that talks is not.
func TestUDPSessions(t *testing.T) {
	cfg := testConfig(t)
	n := start(t, cfg)
	a := add(t, n, "pod-a")
	echo(t, n, "pod-a", "0.0.0.0:80")
	pc, err := net.ListenPacket("udp4", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	u := n.newUDPProxy(pc.(*net.UDPConn), netip.AddrPortFrom(a.IP, 80).String())
	u.idle = 50 * time.Millisecond
	u.run(t.Context())
	defer u.Close()
	client, err := net.Dial("udp4", pc.LocalAddr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer client.Close()
	var sources []string
	for range 2 { // the second time through a new session
		sources = append(sources, askUDP(t, client))
		for u.count() > 0 {
			select {
			case <-t.Context().Done():
				t.Fatal("the session does not end")
			case <-time.After(10 * time.Millisecond):
			}
		}
	}
	if sources[0] != sources[1] {
		t.Errorf("answers %q", sources)
	}
}

// askUDP asks until an answer comes: a busy machine may lose packets, or a session its patience.
func askUDP(t *testing.T, client net.Conn) string {
	t.Helper()
	b := make([]byte, 100)
	for range 20 {
		_ = client.SetDeadline(time.Now().Add(500 * time.Millisecond))
		if _, err := io.WriteString(client, "hi"); err != nil {
			t.Fatal(err)
		}
		k, err := client.Read(b)
		if err == nil {
			return string(b[:k])
		}
	}
	t.Fatal("no answer")
	return ""
}

// TestBigDatagram: packets larger than the links' MTU arrive whole.
func TestBigDatagram(t *testing.T) {
	cfg := testConfig(t)
	n := start(t, cfg)
	a := add(t, n, "pod-a")
	echo(t, n, "pod-a", "0.0.0.0:80")
	hp := HostPort{Port: freePort(t), Protocol: "UDP", PodIP: a.IP, PodPort: 80}
	publish(t, n, hp)
	conn, err := net.Dial("udp4", netip.AddrPortFrom(netip.MustParseAddr("127.0.0.1"), hp.Port).String())
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	sent := strings.Repeat("0123456789", 4000)
	b := make([]byte, udpPacket)
	for range 20 { // a busy machine may lose one of the fragments
		_ = conn.SetDeadline(time.Now().Add(500 * time.Millisecond))
		if _, err := io.WriteString(conn, sent); err != nil {
			t.Fatal(err)
		}
		k, err := conn.Read(b)
		if errors.Is(err, os.ErrDeadlineExceeded) {
			continue
		}
		if err != nil {
			t.Fatal(err)
		}
		if _, got, _ := strings.Cut(string(b[:k]), "\n"); got != sent {
			t.Errorf("%d bytes came back of %d", len(got), len(sent))
		}
		return
	}
	t.Error("no answer")
}

// TestDialCancelled: a dial that gets no answer ends with its context, and leaves no descriptor.
func TestDialCancelled(t *testing.T) {
	cfg := testConfig(t)
	n := start(t, cfg)
	b := nodeAddr(t).As4()
	b[3] = 200 // nobody has that address: connecting takes seconds
	silent := netip.AddrPortFrom(netip.AddrFrom4(b), 80).String()
	before := descriptors(t)
	for range 20 {
		ctx, cancel := context.WithTimeout(t.Context(), 20*time.Millisecond)
		began := time.Now()
		conn, err := n.DialContext(ctx, "tcp", silent)
		cancel()
		if err == nil {
			_ = conn.Close()
			t.Skip(silent + " answers")
		}
		var timeout net.Error
		if !errors.As(err, &timeout) || !timeout.Timeout() || time.Since(began) > 2*time.Second {
			t.Fatalf("after %v: %v", time.Since(began), err)
		}
	}
	if after := descriptors(t); after != before {
		t.Errorf("%d descriptors, were %d", after, before)
	}
}

func descriptors(t *testing.T) int {
	t.Helper()
	list, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		t.Fatal(err)
	}
	return len(list)
}
