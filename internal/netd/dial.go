package netd

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"strconv"
	"syscall"

	"golang.org/x/sys/unix"

	"github.com/podman-swarm/podman-swarm/internal/netd/wire"
)

// DialContext connects from inside the pod network. network is tcp or udp, addr a literal IP
// address and port. Deadlines, cancelling and errors are those of net.Dialer.
func (n *Net) DialContext(ctx context.Context, network, addr string) (net.Conn, error) {
	network, err := family(network, addr)
	if err != nil {
		return nil, err
	}
	d := net.Dialer{ControlContext: n.replace("")}
	return d.DialContext(ctx, network, addr)
}

// DialPod connects from inside the pod's own namespace to a port on its localhost, as a process of
// the pod would: IPv4 first, then IPv6. network is tcp or udp. The error is ErrNoPod when the pod
// is not attached.
func (n *Net) DialPod(ctx context.Context, id, network string, port uint16) (net.Conn, error) {
	if err := wire.CheckID(id); err != nil {
		return nil, err
	}
	d := net.Dialer{ControlContext: n.replace(id)}
	var first error
	for _, ip := range []string{"127.0.0.1", "::1"} {
		addr := net.JoinHostPort(ip, strconv.Itoa(int(port)))
		named, err := family(network, addr)
		if err != nil {
			return nil, err
		}
		conn, err := d.DialContext(ctx, named, addr)
		if err == nil {
			return conn, nil
		}
		if first == nil {
			first = err
		}
		if !errors.Is(err, unix.ECONNREFUSED) {
			break
		}
	}
	return nil, first
}

// Listen listens inside the pod network, on tcp and a literal IP address and port.
func (n *Net) Listen(ctx context.Context, network, addr string) (net.Listener, error) {
	network, err := family(network, addr)
	if err != nil {
		return nil, err
	}
	c := n.listenConfig(ctx)
	return c.Listen(ctx, network, addr)
}

// ListenPacket listens inside the pod network, on udp and a literal IP address and port.
func (n *Net) ListenPacket(ctx context.Context, network, addr string) (net.PacketConn, error) {
	network, err := family(network, addr)
	if err != nil {
		return nil, err
	}
	c := n.listenConfig(ctx)
	return c.ListenPacket(ctx, network, addr)
}

func (n *Net) listenConfig(ctx context.Context) net.ListenConfig {
	replace := n.replace("")
	var c net.ListenConfig
	c.SetMultipathTCP(false)
	c.Control = func(network, addr string, raw syscall.RawConn) error { return replace(ctx, network, addr, raw) }
	return c
}

// replace returns a control function for package net. That calls it with a socket it just made, of
// this process' network namespace, before the first use; we put a socket of the pod network, made
// by the helper, in its place under the same number. From there on the standard library does all
// the rest, which is why this works for every kind of socket and honours every option.
func (n *Net) replace(id string) func(ctx context.Context, network, addr string, c syscall.RawConn) error {
	return func(ctx context.Context, network, _ string, c syscall.RawConn) error {
		got, err := n.exchange(ctx, wire.Request{Op: wire.OpSocket, ID: id, Network: network})
		if err != nil {
			return err
		}
		defer wire.CloseFD(got.fd)
		if got.fd < 0 {
			return errors.New("the network helper sent no socket")
		}
		var dup error
		if err := c.Control(func(fd uintptr) { dup = unix.Dup3(got.fd, int(fd), unix.O_CLOEXEC) }); err != nil {
			return err
		}
		return dup
	}
}

// family returns tcp4, tcp6, udp4 or udp6. A name instead of an address would be looked up outside
// of the pod network, so it is an error.
func family(network, addr string) (string, error) {
	ap, err := netip.ParseAddrPort(addr)
	if err != nil {
		return "", fmt.Errorf("address %s: want a literal address and a port: %w", addr, err)
	}
	version := "6"
	if ap.Addr().Is4() || ap.Addr().Is4In6() {
		version = "4"
	}
	switch network {
	case "tcp", "udp":
		return network + version, nil
	case "tcp" + version, "udp" + version:
		return network, nil
	}
	return "", &net.OpError{Op: "dial", Net: network, Err: net.UnknownNetworkError(network)}
}
