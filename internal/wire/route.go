package wire

import (
	"context"
	"errors"
	"net"
	"time"
)

const (
	maxGuests     = 64 // at once
	maxGuestsFrom = 8  // of these, from one address
	guestTime     = 30 * time.Second
	guestBytes    = 1 << 20 // that one may send
)

// route is where accepted connections of a protocol go.
type route struct {
	proto    string
	guest    bool
	listener *listener // nil when take starts a goroutine of its own
	take     func(*Conn)
}

// register gives a protocol its owner; false when the Wire is closed. Two owners are a mistake of the program.
func (w *Wire) register(r *route) bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.closed {
		return false
	}
	if w.routes[r.proto] != nil {
		panic("wire: protocol " + r.proto + " has an owner already")
	}
	w.routes[r.proto] = r
	return true
}

// Handle calls h in a goroutine of its own for every connection of a protocol, and closes the connection when h
// returns. The context ends with the Wire.
func (w *Wire) Handle(proto string, h func(ctx context.Context, c *Conn)) {
	w.handle(proto, false, h)
}

// Guests is Handle for a protocol that is spoken by peers without certificates, whose Peer is "". A guest has 30
// seconds and may send one MiB; there are at most 64 of them, and 8 of one address.
func (w *Wire) Guests(proto string, h func(ctx context.Context, c *Conn)) {
	w.handle(proto, true, func(ctx context.Context, c *Conn) {
		ctx, cancel := context.WithTimeout(ctx, guestTime)
		defer cancel()
		defer context.AfterFunc(ctx, func() { _ = c.Close() })()
		h(ctx, c)
	})
}

func (w *Wire) handle(proto string, guest bool, h func(context.Context, *Conn)) {
	w.register(&route{proto: proto, guest: guest, take: func(c *Conn) {
		if !w.start(func() {
			defer func() { _ = c.Close() }()
			h(w.ctx, c)
		}) {
			_ = c.Close()
		}
	}})
}

// guestRoom tells whether one more guest may come. The caller holds mu.
func (w *Wire) guestRoom(newcomer *Conn) bool {
	all, same := 0, 0
	for c := range w.conns {
		if c.route == nil || !c.route.guest {
			continue
		}
		if all++; prefix(c.RemoteAddr()) == prefix(newcomer.RemoteAddr()) {
			same++
		}
	}
	return all < maxGuests && same < maxGuestsFrom
}

// guest is a connection that may bring so many bytes.
type guest struct {
	net.Conn
	left int
}

func (g *guest) Read(p []byte) (int, error) {
	if g.left <= 0 && len(p) > 0 {
		return 0, errors.New("the guest has sent too much")
	}
	n, err := g.Conn.Read(p[:min(len(p), g.left)])
	g.left -= n
	return n, err
}

// Listener hands out the connections of a protocol, each a *Conn. Its Close ends the protocol: new connections
// are refused, and the accepted ones closed, also those that nobody has taken yet.
func (w *Wire) Listener(proto string) net.Listener {
	l := &listener{
		w: w, done: make(chan struct{}),
		// enroll keeps it below backlog, but for those that were let in at the same time.
		queue: make(chan *Conn, backlog+maxHandshakes),
	}
	l.route = &route{proto: proto, listener: l, take: func(c *Conn) {
		select {
		case l.queue <- c:
		default:
			_ = c.Close()
		}
	}}
	if !w.register(l.route) {
		close(l.done)
	}
	return l
}

type listener struct {
	w     *Wire
	route *route
	queue chan *Conn
	done  chan struct{}
}

// Accept implements net.Listener.
func (l *listener) Accept() (net.Conn, error) {
	select {
	case <-l.done:
		return nil, net.ErrClosed
	default:
	}
	select {
	case c := <-l.queue:
		return c, nil
	case <-l.done:
		return nil, net.ErrClosed
	}
}

// Addr implements net.Listener.
func (l *listener) Addr() net.Addr { return l.w.Addr() }

// Close implements net.Listener.
func (l *listener) Close() error {
	l.w.mu.Lock()
	mine := l.w.routes[l.route.proto] == l.route
	if mine {
		delete(l.w.routes, l.route.proto)
		close(l.done)
	}
	l.w.mu.Unlock()
	if mine {
		l.w.cut(func(c *Conn) bool { return c.route == l.route })
	}
	return nil
}
