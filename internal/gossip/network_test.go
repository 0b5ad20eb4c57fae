package gossip

import (
	"context"
	"errors"
	"math/rand/v2"
	"net"
	"net/netip"
	"os"
	"sync"
	"testing"
	"time"
)

// network is an in-memory network of hosts, for virtual time: it delays, it loses datagrams, it can
// be cut, and hosts can be unplugged. Nothing in it blocks but channels, pipes and timers.
type network struct {
	delay time.Duration // one way
	loss  float64       // of datagrams

	mu      sync.Mutex
	hosts   map[netip.AddrPort]*host
	cut     func(a, b netip.AddrPort) bool
	changed chan struct{} // closed when cut or hosts change
	sent    int           // datagrams
	bytes   int           // of datagrams and streams
}

func newNetwork(delay time.Duration, loss float64) *network {
	return &network{delay: delay, loss: loss, hosts: map[netip.AddrPort]*host{}, changed: make(chan struct{})}
}

// split cuts everything between the two sides of a rule; nil heals.
func (n *network) split(side func(netip.AddrPort) bool) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.cut = nil
	if side != nil {
		n.cut = func(a, b netip.AddrPort) bool { return side(a) != side(b) }
	}
	n.wake()
}

func (n *network) wake() {
	close(n.changed)
	n.changed = make(chan struct{})
}

// peer is the host at an address, if it can be reached now; else what tells when that may change.
func (n *network) peer(from, to netip.AddrPort) (*host, <-chan struct{}) {
	n.mu.Lock()
	defer n.mu.Unlock()
	self, there := n.hosts[from], n.hosts[to]
	if self == nil || there == nil || n.cut != nil && n.cut(from, to) {
		return nil, n.changed
	}
	return there, n.changed
}

func (n *network) count(packets, bytes int) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.sent += packets
	n.bytes += bytes
}

// traffic returns what was sent since the last call.
func (n *network) traffic() (packets, bytes int) {
	n.mu.Lock()
	defer n.mu.Unlock()
	packets, bytes = n.sent, n.bytes
	n.sent, n.bytes = 0, 0
	return packets, bytes
}

type datagram struct {
	b    []byte
	from netip.AddrPort
}

type host struct {
	n      *network
	addr   netip.AddrPort
	in     chan datagram
	conns  chan net.Conn
	closed chan struct{}
	once   sync.Once
}

func (n *network) host(tb testing.TB, addr string) *host {
	tb.Helper()
	a, err := netip.ParseAddrPort(addr)
	if err != nil {
		tb.Fatal(err)
	}
	h := &host{n: n, addr: a, in: make(chan datagram, 256), conns: make(chan net.Conn, 16), closed: make(chan struct{})}
	n.mu.Lock()
	defer n.mu.Unlock()
	n.hosts[a] = h
	n.wake()
	return h
}

// unplug is the host's sudden death, for all others.
func (h *host) unplug() {
	h.n.mu.Lock()
	defer h.n.mu.Unlock()
	if h.n.hosts[h.addr] == h {
		delete(h.n.hosts, h.addr)
		h.n.wake()
	}
}

func (h *host) Close() error {
	h.once.Do(func() { close(h.closed); h.unplug() })
	return nil
}

func (h *host) LocalAddr() net.Addr { return net.UDPAddrFromAddrPort(h.addr) }

// sockets are a host's datagrams.
type sockets struct{ *host }

func (s sockets) ReadFrom(b []byte) (int, net.Addr, error) {
	select {
	case d := <-s.in:
		return copy(b, d.b), net.UDPAddrFromAddrPort(d.from), nil
	case <-s.closed:
		return 0, nil, net.ErrClosed
	}
}

func (s sockets) WriteTo(b []byte, to net.Addr) (int, error) {
	s.n.count(1, len(b))
	if rand.Float64() < s.n.loss {
		return len(b), nil
	}
	d := datagram{b: append([]byte(nil), b...), from: s.addr}
	target := to.(*net.UDPAddr).AddrPort()
	time.AfterFunc(s.n.delay, func() {
		if there, _ := s.n.peer(s.addr, target); there != nil {
			select {
			case there.in <- d:
			default: // a full queue drops, as a socket does
			}
		}
	})
	return len(b), nil
}

func (s sockets) SetDeadline(time.Time) error      { return errors.ErrUnsupported }
func (s sockets) SetReadDeadline(time.Time) error  { return errors.ErrUnsupported }
func (s sockets) SetWriteDeadline(time.Time) error { return errors.ErrUnsupported }

// streams are a host's listener.
type streams struct{ *host }

func (s streams) Addr() net.Addr { return net.TCPAddrFromAddrPort(s.addr) }

func (s streams) Accept() (net.Conn, error) {
	select {
	case c := <-s.conns:
		return c, nil
	case <-s.closed:
		return nil, net.ErrClosed
	}
}

// dial tries again after one second, and after two more, as TCP does.
func (h *host) dial(ctx context.Context, addr string) (net.Conn, error) {
	to, err := netip.ParseAddrPort(addr)
	if err != nil {
		return nil, err
	}
	for again := time.Second; ; again *= 2 {
		there, _ := h.n.peer(h.addr, to)
		if there != nil {
			select {
			case <-time.After(3 * h.n.delay):
			case <-ctx.Done():
				return nil, context.Cause(ctx)
			}
			near, far := net.Pipe()
			select {
			case there.conns <- &wire{Conn: far, n: h.n, from: to, to: h.addr}:
				return &wire{Conn: near, n: h.n, from: h.addr, to: to}, nil
			default:
				return nil, errors.New("connection refused")
			}
		}
		select {
		case <-time.After(again):
		case <-ctx.Done():
			return nil, context.Cause(ctx)
		}
	}
}

// wire is a stream that stands still while the network is cut.
type wire struct {
	net.Conn
	n        *network
	from, to netip.AddrPort

	mu       sync.Mutex
	deadline time.Time
}

func (w *wire) SetDeadline(t time.Time) error {
	w.mu.Lock()
	w.deadline = t
	w.mu.Unlock()
	return w.Conn.SetDeadline(t)
}

func (w *wire) Write(b []byte) (int, error) {
	w.mu.Lock()
	late := time.NewTimer(time.Until(w.deadline))
	w.mu.Unlock()
	defer late.Stop()
	for {
		there, changed := w.n.peer(w.from, w.to)
		if there != nil {
			break
		}
		select {
		case <-changed:
		case <-late.C:
			return 0, os.ErrDeadlineExceeded
		}
	}
	w.n.count(0, len(b))
	return w.Conn.Write(b)
}
