package simnet

import (
	"errors"
	"net"
	"net/netip"
	"time"
)

// Packets are a host's datagrams. Addresses must be numeric.
func (h *Host) Packets() net.PacketConn { return socket{h} }

type datagram struct {
	b    []byte
	from string
}

type socket struct{ h *Host }

// send sends a datagram, if it comes to that.
func (n *Net) send(from *Host, to string, b []byte) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.packets++
	n.bytes += len(b)
	there := n.hosts[to]
	if there == nil || !n.passes(from, there) || n.chance(n.q.Loss) {
		return
	}
	d := datagram{b: append([]byte(nil), b...), from: from.addr}
	copies := 1
	if n.chance(n.q.Double) {
		copies = 2
	}
	for range copies {
		time.AfterFunc(n.latency(), func() {
			n.mu.Lock()
			ok := n.passes(from, there)
			n.mu.Unlock()
			if !ok {
				return
			}
			select {
			case there.datagrams <- d:
			default: // a full queue drops, as a socket does
			}
		})
	}
}

// ReadFrom implements net.PacketConn.
func (s socket) ReadFrom(b []byte) (int, net.Addr, error) {
	select {
	case d := <-s.h.datagrams:
		return copy(b, d.b), net.UDPAddrFromAddrPort(netip.MustParseAddrPort(d.from)), nil
	case <-s.h.hears.Done():
		return 0, nil, net.ErrClosed
	}
}

// WriteTo implements net.PacketConn.
func (s socket) WriteTo(b []byte, to net.Addr) (int, error) {
	s.h.n.send(s.h, to.String(), b)
	return len(b), nil
}

// LocalAddr implements net.PacketConn.
func (s socket) LocalAddr() net.Addr {
	return net.UDPAddrFromAddrPort(netip.MustParseAddrPort(s.h.addr))
}

// Close implements net.PacketConn.
func (s socket) Close() error {
	s.h.deafen()
	return nil
}

func (socket) SetDeadline(time.Time) error      { return errors.ErrUnsupported }
func (socket) SetReadDeadline(time.Time) error  { return errors.ErrUnsupported }
func (socket) SetWriteDeadline(time.Time) error { return errors.ErrUnsupported }
