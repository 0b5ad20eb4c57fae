package simnet

import (
	"io"
	"net"
	"os"
	"sync"
	"sync/atomic"
	"syscall"
	"time"
)

// stream is a connection of two hosts. Guarded by Net.mu.
type stream struct {
	n       *Net
	a, b    *Host
	ends    [2]*conn // of a, of b
	doubt   int      // counts cuts, so that only the present one ends the stream
	severed bool
}

// conn is one end of a stream.
type conn struct {
	s        *stream
	from, to *Host
	rx, tx   *half
	closed   atomic.Bool
}

// half is one direction.
type half struct {
	mu       sync.Mutex
	queue    []segment
	held     []segment // what met a cut
	cut      bool
	err      error // why there is no more; queue first
	deadline time.Time
	wake     chan struct{}
}

type segment struct {
	b  []byte
	at time.Time // of arrival
}

// connect makes a stream. Called with the lock held.
func (n *Net) connect(a, b *Host) (near, far *conn) {
	x, y := &half{wake: make(chan struct{}, 1)}, &half{wake: make(chan struct{}, 1)}
	s := &stream{n: n, a: a, b: b}
	near, far = &conn{s: s, from: a, to: b, rx: x, tx: y}, &conn{s: s, from: b, to: a, rx: y, tx: x}
	s.ends = [2]*conn{near, far}
	n.streams[s] = struct{}{}
	return near, far
}

func (s *stream) side(h *Host) int {
	if h == s.a {
		return 0
	}
	return 1
}

// recut holds back what meets a cut and lets go of it when the cut is over, somewhat later. A
// connection that is severed too long ends on both sides.
func (s *stream) recut() {
	severed := false
	for _, c := range s.ends {
		passes := s.n.passes(c.from, c.to)
		severed = severed || !passes
		c.tx.recut(!passes, retransmit+s.n.latency())
	}
	if severed && !s.severed {
		s.watch()
	}
	s.severed = severed
	if !severed {
		s.doubt++
	}
}

// watch ends the stream after a time, unless it is whole again.
func (s *stream) watch() {
	s.doubt++
	doubt := s.doubt
	time.AfterFunc(silence+time.Duration(s.n.rnd.Int64N(int64(time.Second))), func() {
		s.n.mu.Lock()
		defer s.n.mu.Unlock()
		if s.doubt == doubt {
			s.abort(syscall.ETIMEDOUT)
		}
	})
}

// abort ends both directions. Called with the network's lock held.
func (s *stream) abort(why error) {
	delete(s.n.streams, s)
	for _, c := range s.ends {
		c.shut(why)
	}
}

func (h *half) recut(cut bool, late time.Duration) {
	h.mu.Lock()
	defer h.mu.Unlock()
	now := time.Now()
	switch {
	case cut && !h.cut:
		for i, s := range h.queue {
			if s.at.After(now) {
				h.held = append(h.held, h.queue[i:]...)
				h.queue = h.queue[:i]
				break
			}
		}
	case !cut && h.cut:
		for _, s := range h.held {
			h.queue = append(h.queue, segment{s.b, now.Add(late)})
		}
		h.held = nil
		h.kick()
	}
	h.cut = cut
}

func (h *half) kick() {
	select {
	case h.wake <- struct{}{}:
	default:
	}
}

// Write implements net.Conn.
func (c *conn) Write(p []byte) (int, error) {
	n := c.s.n
	n.mu.Lock()
	wait := n.latency()
	if n.chance(n.q.Loss) {
		wait += retransmit
	}
	passes := n.passes(c.from, c.to)
	n.bytes += len(p)
	n.mu.Unlock()
	h := c.tx
	h.mu.Lock()
	defer h.mu.Unlock()
	if c.closed.Load() {
		return 0, net.ErrClosed
	}
	if h.err != nil {
		return 0, h.err
	}
	s := segment{append([]byte(nil), p...), time.Now().Add(wait)}
	if h.cut || !passes {
		h.cut = true
		h.held = append(h.held, s)
		return len(p), nil
	}
	if k := len(h.queue); k > 0 && h.queue[k-1].at.After(s.at) {
		s.at = h.queue[k-1].at
	}
	h.queue = append(h.queue, s)
	h.kick()
	return len(p), nil
}

// Read implements net.Conn.
func (c *conn) Read(p []byte) (int, error) {
	for {
		n, wait, err := c.rx.take(p)
		if n > 0 || err != nil || len(p) == 0 {
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
	switch {
	case len(h.queue) > 0:
		s := &h.queue[0]
		if wait = time.Until(s.at); wait <= 0 {
			n = copy(p, s.b)
			if s.b = s.b[n:]; len(s.b) == 0 {
				h.queue = h.queue[1:]
			}
			return n, 0, nil
		}
	case h.err != nil:
		return 0, 0, h.err
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

func (h *half) end(why error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.err == nil {
		h.err = why
	}
	h.kick()
}

// shut ends this end of the stream at once.
func (c *conn) shut(why error) {
	c.tx.end(why)
	c.rx.end(why)
}

// Close implements net.Conn: the peer reads what was sent, then the end; behind a cut it hears of
// neither, and gives up by itself.
func (c *conn) Close() error {
	c.s.n.mu.Lock()
	defer c.s.n.mu.Unlock()
	c.vanish()
	if c.s.severed {
		c.s.watch()
		return nil
	}
	delete(c.s.n.streams, c.s)
	c.tx.end(io.EOF)
	return nil
}

// vanish ends this end alone: the other is told nothing.
func (c *conn) vanish() {
	c.closed.Store(true)
	c.rx.end(net.ErrClosed)
}

// LocalAddr implements net.Conn.
func (c *conn) LocalAddr() net.Addr { return address(c.from.addr) }

// RemoteAddr implements net.Conn.
func (c *conn) RemoteAddr() net.Addr { return address(c.to.addr) }

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
