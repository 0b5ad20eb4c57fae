package state

import (
	"context"
	"errors"
	"net"
	"sync"
	"time"

	"github.com/hashicorp/raft"
)

// Dialer opens a connection to the replica at an address.
type Dialer func(ctx context.Context, addr string) (net.Conn, error)

// Stream is a raft.StreamLayer over any listener. It knows its connections and closes them with
// itself: Raft's own transport leaves those it pooled open.
type Stream struct {
	net.Listener
	dial Dialer

	mu     sync.Mutex
	conns  map[*trackedConn]struct{}
	closed bool
}

var _ raft.StreamLayer = (*Stream)(nil)

// NewStream makes a Stream; it closes the listener with itself.
func NewStream(l net.Listener, dial Dialer) *Stream {
	return &Stream{Listener: l, dial: dial, conns: map[*trackedConn]struct{}{}}
}

// Accept implements net.Listener.
func (s *Stream) Accept() (net.Conn, error) {
	c, err := s.Listener.Accept()
	if err != nil {
		return nil, err
	}
	return s.track(c)
}

// Dial implements raft.StreamLayer.
func (s *Stream) Dial(addr raft.ServerAddress, timeout time.Duration) (net.Conn, error) {
	ctx, cancel := context.WithTimeout(context.Background(), timeout) //nolint:forbidigo // Raft gives no context
	defer cancel()
	c, err := s.dial(ctx, string(addr))
	if err != nil {
		return nil, err
	}
	return s.track(c)
}

// Close closes the listener and every connection.
func (s *Stream) Close() error {
	s.mu.Lock()
	s.closed = true
	conns := s.conns
	s.conns = map[*trackedConn]struct{}{}
	s.mu.Unlock()
	err := s.Listener.Close()
	for c := range conns {
		_ = c.Conn.Close()
	}
	return err
}

func (s *Stream) track(c net.Conn) (net.Conn, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return nil, errors.Join(net.ErrClosed, c.Close())
	}
	t := &trackedConn{Conn: c, s: s}
	s.conns[t] = struct{}{}
	return t, nil
}

type trackedConn struct {
	net.Conn
	s *Stream
}

func (c *trackedConn) Close() error {
	c.s.mu.Lock()
	delete(c.s.conns, c)
	c.s.mu.Unlock()
	return c.Conn.Close()
}
