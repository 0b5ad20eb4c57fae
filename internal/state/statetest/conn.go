package statetest

import (
	"io"
	"net"
	"os"
	"sync"
	"time"
)

type listener struct {
	node     *Node
	id       string
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
	l.node.n.mu.Lock()
	defer l.node.n.mu.Unlock()
	l.closeLocked()
	return nil
}

func (l *listener) closeLocked() {
	if !l.closed {
		l.closed = true
		close(l.done)
		delete(l.node.listeners, l.id)
	}
}

// Addr implements net.Listener.
func (l *listener) Addr() net.Addr { return address(Addr(l.node.Name)) }

type address string

func (address) Network() string  { return "test" }
func (a address) String() string { return string(a) }

// conn is one end of a stream.
type conn struct {
	n        *Net
	from, to string
	rx, tx   *half
}

// half is one direction.
type half struct {
	mu       sync.Mutex
	queue    []segment
	closed   bool
	deadline time.Time
	wake     chan struct{}
}

type segment struct {
	data []byte
	at   time.Time // when it arrives
}

func pipe(n *Net, a, b string) (near, far *conn) {
	x, y := &half{wake: make(chan struct{}, 1)}, &half{wake: make(chan struct{}, 1)}
	return &conn{n, a, b, x, y}, &conn{n, b, a, y, x}
}

func (h *half) kick() {
	select {
	case h.wake <- struct{}{}:
	default:
	}
}

// Write implements net.Conn. What is written into a partition is lost.
func (c *conn) Write(p []byte) (int, error) {
	c.n.mu.Lock()
	severed := c.n.severed(c.from, c.to)
	c.n.mu.Unlock()
	c.tx.mu.Lock()
	defer c.tx.mu.Unlock()
	if c.tx.closed {
		return 0, io.ErrClosedPipe
	}
	if !severed {
		c.tx.queue = append(c.tx.queue, segment{append([]byte(nil), p...), time.Now().Add(c.n.Delay)})
		c.tx.kick()
	}
	return len(p), nil
}

// Read implements net.Conn.
func (c *conn) Read(p []byte) (int, error) {
	for {
		n, wait, err := c.rx.take(p)
		if n > 0 || err != nil {
			return n, err
		}
		if wait < 0 {
			<-c.rx.wake
			continue
		}
		timer := time.NewTimer(wait)
		select {
		case <-c.rx.wake:
		case <-timer.C:
		}
		timer.Stop()
	}
}

// take reads what has arrived, or says how long until it is worth looking again; below 0: only when
// woken.
func (h *half) take(p []byte) (n int, wait time.Duration, err error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	wait = -1
	if len(h.queue) > 0 {
		s := &h.queue[0]
		if wait = time.Until(s.at); wait <= 0 {
			n = copy(p, s.data)
			if s.data = s.data[n:]; len(s.data) == 0 {
				h.queue = h.queue[1:]
			}
			return n, 0, nil
		}
	} else if h.closed {
		return 0, 0, io.EOF
	}
	if !h.deadline.IsZero() {
		left := time.Until(h.deadline)
		if left <= 0 {
			return 0, 0, os.ErrDeadlineExceeded
		}
		if wait < 0 || left < wait {
			wait = left
		}
	}
	return 0, wait, nil
}

// shut closes both directions.
func (c *conn) shut() {
	for _, h := range []*half{c.rx, c.tx} {
		h.mu.Lock()
		h.closed = true
		h.mu.Unlock()
		h.kick()
	}
}

// Close implements net.Conn.
func (c *conn) Close() error {
	c.n.mu.Lock()
	delete(c.n.conns, c)
	c.n.mu.Unlock()
	c.shut()
	return nil
}

// LocalAddr implements net.Conn.
func (c *conn) LocalAddr() net.Addr { return address(Addr(c.from)) }

// RemoteAddr implements net.Conn.
func (c *conn) RemoteAddr() net.Addr { return address(Addr(c.to)) }

// SetDeadline implements net.Conn.
func (c *conn) SetDeadline(t time.Time) error { return c.SetReadDeadline(t) }

// SetReadDeadline implements net.Conn.
func (c *conn) SetReadDeadline(t time.Time) error {
	c.rx.mu.Lock()
	c.rx.deadline = t
	c.rx.mu.Unlock()
	c.rx.kick()
	return nil
}

// SetWriteDeadline implements net.Conn: writes do not wait.
func (*conn) SetWriteDeadline(time.Time) error { return nil }
