package netd

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"strconv"
	"strings"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

// HostPort is a port of this host that leads to a port of a pod.
type HostPort struct {
	IP       netip.Addr // invalid or unspecified: all addresses of the host
	Port     uint16
	Protocol string // TCP or UDP
	PodIP    netip.Addr
	PodPort  uint16
}

func (p HostPort) String() string {
	if !p.IP.IsValid() || p.IP.IsUnspecified() {
		return fmt.Sprintf("host port %d/%s", p.Port, strings.ToLower(p.Protocol))
	}
	return fmt.Sprintf("host port %s/%s", netip.AddrPortFrom(p.IP, p.Port), strings.ToLower(p.Protocol))
}

// listenAddr is the address to listen on. All addresses means IPv6 too for TCP; a UDP server on
// several addresses must answer from the one it was asked on, which is done for IPv4 only.
func (p HostPort) listenAddr() (network, addr string, err error) {
	network = strings.ToLower(p.Protocol)
	if network != "tcp" && network != "udp" {
		return "", "", fmt.Errorf("%s: protocol %q cannot be published, only TCP and UDP", p, p.Protocol)
	}
	ip := ""
	if p.IP.IsValid() && !p.IP.IsUnspecified() {
		ip = p.IP.String()
	} else if network == "udp" {
		network = "udp4"
	}
	return network, net.JoinHostPort(ip, strconv.Itoa(int(p.Port))), nil
}

// Publish opens a port of the host, the same way for root and for an ordinary user, and carries
// what arrives there to the pod; the pod sees the gateway as its peer. Closing the result ends
// that and every connection made through it. ctx matters for opening only.
func (n *Net) Publish(ctx context.Context, p HostPort) (io.Closer, error) {
	network, addr, err := p.listenAddr()
	if err != nil {
		return nil, err
	}
	target := netip.AddrPortFrom(p.PodIP, p.PodPort).String()
	if _, err := family(network[:3], target); err != nil {
		return nil, fmt.Errorf("%s: %w", p, err)
	}
	var c net.ListenConfig
	if network == "tcp" {
		l, err := c.Listen(ctx, network, addr)
		if err != nil {
			return nil, p.explain(err)
		}
		return n.proxyTCP(context.WithoutCancel(ctx), l, target), nil
	}
	c.Control = receiveDestination
	pc, err := c.ListenPacket(ctx, network, addr)
	if err != nil {
		return nil, p.explain(err)
	}
	u := n.newUDPProxy(pc.(*net.UDPConn), target)
	// Not this ctx: the proxy ends by Close, not with the request that made it.
	u.run(context.WithoutCancel(ctx))
	return u, nil
}

func (p HostPort) explain(err error) error {
	switch {
	case errors.Is(err, unix.EADDRINUSE):
		return fmt.Errorf("%s is in use already: %w", p, err)
	case errors.Is(err, unix.EACCES):
		return fmt.Errorf("%s is not open to an ordinary user; the sysctl net.ipv4.ip_unprivileged_port_start allows it: %w", p, err)
	case errors.Is(err, unix.EADDRNOTAVAIL):
		return fmt.Errorf("%s: this host has no such address: %w", p, err)
	}
	return fmt.Errorf("%s: %w", p, err)
}

func (n *Net) dialPublished(ctx context.Context, network, addr string) (net.Conn, error) {
	if n.cfg.Dial != nil {
		return n.cfg.Dial(ctx, network, addr)
	}
	return n.DialContext(ctx, network, addr)
}

// tcpProxy carries connections of a listener to the pod.
type tcpProxy struct {
	net    *Net
	target string
	listen net.Listener
	cancel context.CancelFunc
	work   sync.WaitGroup
}

func (n *Net) proxyTCP(ctx context.Context, l net.Listener, target string) *tcpProxy {
	ctx, cancel := context.WithCancel(ctx)
	t := &tcpProxy{net: n, target: target, listen: l, cancel: cancel}
	t.work.Go(func() { t.accept(ctx) })
	return t
}

// Close stops listening, ends every connection and waits for that.
func (t *tcpProxy) Close() error {
	t.cancel()
	err := t.listen.Close()
	t.work.Wait()
	return err
}

func (t *tcpProxy) accept(ctx context.Context) {
	for {
		client, err := t.listen.Accept()
		if err == nil {
			t.work.Go(func() { t.carry(ctx, client) })
			continue
		}
		if ctx.Err() != nil {
			return
		}
		t.net.cfg.Log.Warn("published port cannot accept", "port", t.listen.Addr().String(), "err", err)
		select { // out of descriptors, perhaps: it passes
		case <-ctx.Done():
			return
		case <-time.After(100 * time.Millisecond):
		}
	}
}

func (t *tcpProxy) carry(ctx context.Context, client net.Conn) {
	defer func() { _ = client.Close() }()
	pod, err := t.net.dialPublished(ctx, "tcp", t.target)
	if err != nil {
		// As a host without this port would: reset, not a clean end of an empty answer.
		_ = client.(*net.TCPConn).SetLinger(0)
		return
	}
	defer func() { _ = pod.Close() }()
	defer context.AfterFunc(ctx, func() { _, _ = client.Close(), pod.Close() })()
	var both sync.WaitGroup
	both.Go(func() { halfPipe(pod.(*net.TCPConn), client.(*net.TCPConn)) })
	both.Go(func() { halfPipe(client.(*net.TCPConn), pod.(*net.TCPConn)) })
	both.Wait()
}

// halfPipe copies one direction and passes its end on; the other direction may go on.
func halfPipe(to, from *net.TCPConn) {
	if _, err := io.Copy(to, from); err != nil {
		// One side is broken: neither direction has a future.
		_, _ = to.Close(), from.Close()
		return
	}
	_ = to.CloseWrite()
}
