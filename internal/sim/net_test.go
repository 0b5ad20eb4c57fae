package sim

import (
	"context"
	"errors"
	"math/rand/v2"
	"net"
	"net/netip"
	"sync"
	"time"
)

const (
	// silence is after how long wire gives up a connection whose peer does not answer.
	silence = 5 * time.Second
	// retransmit is how long a lost part of a stream takes to come again.
	retransmit = 200 * time.Millisecond
)

var (
	errRefused = errors.New("connection refused")
	errSilent  = errors.New("connection timed out")
	errReset   = errors.New("connection reset by peer")
)

// network carries datagrams, streams and calls between hosts. Nothing in it blocks but channels and
// timers, so it lives in virtual time.
type network struct {
	mu      sync.Mutex
	rnd     *rand.Rand
	delay   time.Duration // one way; each message takes up to three times as long
	loss    float64
	double  float64
	cut     func(from, to string) bool // by name; nil: nothing is cut
	hosts   map[string]*host           // by address
	streams map[*stream]struct{}       // each connection once
	healed  chan struct{}              // closed when the cut changes
}

func newNetwork(rnd *rand.Rand) *network {
	return &network{
		rnd: rnd, delay: 500 * time.Microsecond, hosts: map[string]*host{}, streams: map[*stream]struct{}{}, healed: make(chan struct{}),
	}
}

// host is one boot of a node, as the network sees it.
type host struct {
	n          *network
	name, addr string
	serve      func(ctx context.Context, request []byte) []byte
	datagrams  chan datagram
	ctx        context.Context
	end        context.CancelFunc
	hears      context.Context // ends when datagrams are no longer read
	deafen     context.CancelFunc

	// Guarded by network.mu.
	gone      bool
	silent    bool // it lost power: its peers are not told
	listeners map[string]*listener
}

type datagram struct {
	b    []byte
	from string
}

// plug puts a host into the network.
func (n *network) plug(name, addr string, serve func(context.Context, []byte) []byte) *host {
	ctx, end := context.WithCancel(context.Background())
	h := &host{
		n: n, name: name, addr: addr, serve: serve, datagrams: make(chan datagram, 256), ctx: ctx, end: end,
		listeners: map[string]*listener{},
	}
	h.hears, h.deafen = context.WithCancel(ctx)
	n.mu.Lock()
	defer n.mu.Unlock()
	n.hosts[addr] = h
	return h
}

// unplug takes it away: its connections are reset, or, when it lost power, nobody hears of it.
func (h *host) unplug(power bool) {
	h.end()
	n := h.n
	n.mu.Lock()
	defer n.mu.Unlock()
	if h.gone {
		return
	}
	h.gone, h.silent = true, power
	for _, l := range h.listeners {
		l.shut()
	}
	for s := range n.streams {
		switch {
		case s.a != h && s.b != h:
		case power:
			s.watch() // the other end notices by itself
			s.ends[s.side(h)].shut(net.ErrClosed)
		default:
			s.abort(errReset)
		}
	}
}

// sever cuts what the rule says, in each direction on its own; nil heals.
func (n *network) sever(cut func(from, to string) bool) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.cut = cut
	close(n.healed)
	n.healed = make(chan struct{})
	for s := range n.streams {
		s.recut()
	}
}

// passes reports whether messages get from one host to the other. Called with the lock held.
func (n *network) passes(from, to *host) bool {
	return !from.gone && !to.gone && (n.cut == nil || !n.cut(from.name, to.name))
}

// latency is how long one message takes. Called with the lock held.
func (n *network) latency() time.Duration {
	return n.delay + time.Duration(n.rnd.Int64N(int64(2*n.delay)+1))
}

// chance is true so often. Called with the lock held.
func (n *network) chance(p float64) bool { return p > 0 && n.rnd.Float64() < p }

// send sends a datagram, if it comes to that.
func (n *network) send(from *host, to string, b []byte) {
	n.mu.Lock()
	defer n.mu.Unlock()
	there := n.hosts[to]
	if there == nil || !n.passes(from, there) || n.chance(n.loss) {
		return
	}
	d := datagram{b: append([]byte(nil), b...), from: from.addr}
	for copies := 1; copies > 0; copies-- {
		if copies == 1 && n.chance(n.double) {
			copies++
		}
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

// carry takes one message of a connection to the host at an address, and returns it. What meets a cut
// waits for its end, as long as the connection would.
func (n *network) carry(ctx context.Context, from *host, to string) (*host, error) {
	late := time.NewTimer(silence)
	defer late.Stop()
	for {
		n.mu.Lock()
		there := n.hosts[to]
		wait, healed := n.latency(), n.healed
		if n.chance(n.loss) {
			wait += retransmit
		}
		refuses := there == nil || there.gone && !there.silent
		hangs := !refuses && (there.silent || !n.passes(from, there) || !n.passes(there, from))
		if n.cut != nil && there != nil && (n.cut(from.name, there.name) || n.cut(there.name, from.name)) {
			refuses, hangs = false, true
		}
		n.mu.Unlock()
		if hangs {
			select {
			case <-healed:
				continue
			case <-late.C:
				return nil, errSilent
			case <-from.ctx.Done():
				return nil, net.ErrClosed
			case <-ctx.Done():
				return nil, ctx.Err()
			}
		}
		arrives := time.NewTimer(wait)
		select {
		case <-arrives.C:
		case <-ctx.Done():
			arrives.Stop()
			return nil, ctx.Err()
		}
		if refuses {
			return nil, errRefused
		}
		n.mu.Lock()
		ok := n.hosts[to] == there && n.passes(from, there)
		n.mu.Unlock()
		if ok {
			return there, nil
		}
	}
}

// call has the host at an address answer. After an error it may have, or may still.
func (h *host) call(ctx context.Context, addr string, request []byte) ([]byte, error) {
	there, err := h.n.carry(ctx, h, addr)
	if err != nil {
		return nil, err
	}
	answered := make(chan []byte, 1)
	go func() { answered <- there.serve(there.ctx, request) }()
	select {
	case answer := <-answered:
		back, err := h.n.carry(ctx, there, h.addr)
		if err == nil && back != h {
			err = errReset
		}
		return answer, err
	case <-there.ctx.Done():
		return nil, errReset
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

// dial opens a stream that a listener for the protocol accepts.
func (h *host) dial(ctx context.Context, addr, proto string) (net.Conn, error) {
	there, err := h.n.carry(ctx, h, addr)
	if err != nil {
		return nil, err
	}
	h.n.mu.Lock()
	l := there.listeners[proto]
	if l == nil || h.gone {
		h.n.mu.Unlock()
		return nil, errRefused
	}
	near, far := h.n.connect(h, there)
	h.n.mu.Unlock()
	select {
	case l.incoming <- far:
		return near, nil
	case <-l.done:
		err = errRefused
	case <-ctx.Done():
		err = ctx.Err()
	}
	_ = near.Close()
	return nil, err
}

// listen makes a listener for a protocol.
func (h *host) listen(proto string) (*listener, error) {
	h.n.mu.Lock()
	defer h.n.mu.Unlock()
	if h.gone {
		return nil, net.ErrClosed
	}
	if h.listeners[proto] != nil {
		return nil, errors.New("listen twice for " + proto)
	}
	l := &listener{h: h, proto: proto, incoming: make(chan net.Conn), done: make(chan struct{})}
	h.listeners[proto] = l
	return l, nil
}

type listener struct {
	h        *host
	proto    string
	incoming chan net.Conn
	done     chan struct{}
	closed   bool
}

// Accept implements net.Listener.
func (l *listener) Accept() (net.Conn, error) {
	select {
	case c := <-l.incoming:
		return c, nil
	case <-l.done:
		return nil, net.ErrClosed
	}
}

// Close implements net.Listener.
func (l *listener) Close() error {
	l.h.n.mu.Lock()
	defer l.h.n.mu.Unlock()
	l.shut()
	return nil
}

func (l *listener) shut() {
	if !l.closed {
		l.closed = true
		close(l.done)
		delete(l.h.listeners, l.proto)
	}
}

// Addr implements net.Listener.
func (l *listener) Addr() net.Addr { return tcpAddr(l.h.addr) }

func tcpAddr(a string) net.Addr { return net.TCPAddrFromAddrPort(netip.MustParseAddrPort(a)) }

// socket is a host's datagrams, as gossip wants them.
type socket struct{ *host }

// ReadFrom implements net.PacketConn.
func (s socket) ReadFrom(b []byte) (int, net.Addr, error) {
	select {
	case d := <-s.datagrams:
		return copy(b, d.b), net.UDPAddrFromAddrPort(netip.MustParseAddrPort(d.from)), nil
	case <-s.hears.Done():
		return 0, nil, net.ErrClosed
	}
}

// WriteTo implements net.PacketConn.
func (s socket) WriteTo(b []byte, to net.Addr) (int, error) {
	s.n.send(s.host, to.String(), b)
	return len(b), nil
}

// LocalAddr implements net.PacketConn.
func (s socket) LocalAddr() net.Addr { return net.UDPAddrFromAddrPort(netip.MustParseAddrPort(s.addr)) }

// Close implements net.PacketConn.
func (s socket) Close() error {
	s.deafen()
	return nil
}

func (socket) SetDeadline(time.Time) error      { return errors.ErrUnsupported }
func (socket) SetReadDeadline(time.Time) error  { return errors.ErrUnsupported }
func (socket) SetWriteDeadline(time.Time) error { return errors.ErrUnsupported }
