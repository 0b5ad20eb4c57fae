package simnet

import (
	"context"
	"errors"
	"math/rand/v2"
	"net"
	"sync"
	"syscall"
	"time"
)

const (
	// silence is after how long a connection is given up whose peer does not answer, as package wire does.
	silence = 5 * time.Second
	// retransmit is how long a lost part of a stream takes to come again.
	retransmit = 200 * time.Millisecond
)

// Quality is how well the network carries. Streams and calls lose nothing: what is lost comes later.
type Quality struct {
	Delay  time.Duration // one way; each message takes up to three times as long
	Loss   float64       // of messages, 0 to 1
	Double float64       // of datagrams, 0 to 1
}

// Net carries datagrams, streams and calls between hosts.
type Net struct {
	mu      sync.Mutex
	rnd     *rand.Rand
	q       Quality
	cut     func(from, to string) bool // by name; nil: nothing is cut
	hosts   map[string]*Host           // by address
	streams map[*stream]struct{}       // each connection once
	healed  chan struct{}              // closed when the cut changes
	packets int                        // datagrams sent
	bytes   int                        // sent in datagrams and streams
}

// New returns a network without hosts, whose chances come from rnd.
func New(rnd *rand.Rand, q Quality) *Net {
	return &Net{rnd: rnd, q: q, hosts: map[string]*Host{}, streams: map[*stream]struct{}{}, healed: make(chan struct{})}
}

// Change gives later messages another quality.
func (n *Net) Change(change func(q *Quality)) {
	n.mu.Lock()
	defer n.mu.Unlock()
	change(&n.q)
}

// Host is one boot of a node, as the network sees it.
type Host struct {
	n          *Net
	name, addr string
	serve      func(ctx context.Context, request []byte) []byte
	datagrams  chan datagram
	ctx        context.Context
	end        context.CancelFunc
	hears      context.Context // ends when datagrams are no longer read
	deafen     context.CancelFunc

	// Guarded by Net.mu.
	gone      bool
	silent    bool // it lost power: its peers are not told
	listeners map[string]*listener
}

// Plug puts a host into the network, in the place of one with the same address; serve answers its calls.
// ctx ends no more than calls and listeners: Unplug is the end of a host.
func (n *Net) Plug(ctx context.Context, name, addr string, serve func(context.Context, []byte) []byte) *Host {
	ctx, end := context.WithCancel(ctx)
	h := &Host{
		n: n, name: name, addr: addr, serve: serve, datagrams: make(chan datagram, 256), ctx: ctx, end: end,
		listeners: map[string]*listener{},
	}
	h.hears, h.deafen = context.WithCancel(ctx)
	n.mu.Lock()
	defer n.mu.Unlock()
	n.hosts[addr] = h
	for s := range n.streams {
		if s.a.addr == addr || s.b.addr == addr { // a machine that is back knows nothing of its streams, and says so
			s.abort(syscall.ECONNRESET)
		}
	}
	return h
}

// Unplug takes it away: its connections are reset, or, when it lost power, nobody hears of it.
func (h *Host) Unplug(power bool) {
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
			s.ends[s.side(h)].vanish()
		default:
			s.abort(syscall.ECONNRESET)
		}
	}
}

// Reset breaks every stream: nobody is cut off, all must dial again.
func (n *Net) Reset() {
	n.mu.Lock()
	defer n.mu.Unlock()
	for s := range n.streams {
		s.abort(syscall.ECONNRESET)
	}
}

// Traffic returns how many datagrams were sent since the last call, and how many bytes in them and in streams.
func (n *Net) Traffic() (packets, bytes int) {
	n.mu.Lock()
	defer n.mu.Unlock()
	packets, bytes = n.packets, n.bytes
	n.packets, n.bytes = 0, 0
	return packets, bytes
}

// Meet tells whether two hosts are there and reach each other.
func (n *Net) Meet(a, b *Host) bool {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.passes(a, b) && n.passes(b, a)
}

// Sever cuts what the rule says of two names, in each direction on its own; nil heals.
func (n *Net) Sever(cut func(from, to string) bool) {
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
func (n *Net) passes(from, to *Host) bool {
	return !from.gone && !to.gone && (n.cut == nil || !n.cut(from.name, to.name))
}

// latency is how long one message takes. Called with the lock held.
func (n *Net) latency() time.Duration {
	return n.q.Delay + time.Duration(n.rnd.Int64N(int64(2*n.q.Delay)+1))
}

// chance is true so often. Called with the lock held.
func (n *Net) chance(p float64) bool { return p > 0 && n.rnd.Float64() < p }

// carry takes one message of a connection to the host at an address, and returns it. What meets a cut
// waits for its end, as long as the connection would.
func (n *Net) carry(ctx context.Context, from *Host, to string) (*Host, error) {
	late := time.NewTimer(silence)
	defer late.Stop()
	for {
		n.mu.Lock()
		there := n.hosts[to]
		wait, healed := n.latency(), n.healed
		if n.chance(n.q.Loss) {
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
				return nil, syscall.ETIMEDOUT
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
			return nil, syscall.ECONNREFUSED
		}
		n.mu.Lock()
		ok := n.hosts[to] == there && n.passes(from, there)
		n.mu.Unlock()
		if ok {
			return there, nil
		}
	}
}

// Call has the host at an address answer. After an error it may have, or may still, but for ECONNREFUSED.
func (h *Host) Call(ctx context.Context, addr string, request []byte) ([]byte, error) {
	there, err := h.n.carry(ctx, h, addr)
	if err != nil {
		return nil, err
	}
	answered := make(chan []byte, 1)
	go func() { answered <- there.serve(there.ctx, request) }()
	select {
	case answer := <-answered:
		back, err := h.n.carry(ctx, there, h.addr)
		if errors.Is(err, syscall.ECONNREFUSED) || err == nil && back != h {
			err = syscall.ECONNRESET
		}
		return answer, err
	case <-there.ctx.Done():
		return nil, syscall.ECONNRESET
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

// Dial opens a stream that a listener for the protocol accepts.
func (h *Host) Dial(ctx context.Context, addr, proto string) (net.Conn, error) {
	there, err := h.n.carry(ctx, h, addr)
	if err != nil {
		return nil, err
	}
	h.n.mu.Lock()
	l := there.listeners[proto]
	if l == nil || h.gone {
		h.n.mu.Unlock()
		return nil, syscall.ECONNREFUSED
	}
	near, far := h.n.connect(h, there)
	h.n.mu.Unlock()
	select {
	case l.incoming <- far:
		return near, nil
	case <-l.done:
		err = syscall.ECONNREFUSED
	case <-ctx.Done():
		err = ctx.Err()
	}
	_ = near.Close()
	return nil, err
}

// Listen accepts streams for a protocol.
func (h *Host) Listen(proto string) (net.Listener, error) {
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
