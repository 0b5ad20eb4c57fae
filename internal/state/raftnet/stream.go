package raftnet

import (
	"context"
	"errors"
	"io"
	"net"
	"sync"
	"time"

	"github.com/hashicorp/raft"
)

// Dialer opens a connection of the lineage to the replica at an address.
type Dialer func(ctx context.Context, addr string) (net.Conn, error)

// Config says how a Stream reaches others and is reached.
type Config struct {
	Listener net.Listener // of the lineage; closed with the Stream
	Dial     Dialer
	Server   string // this replica's name
	Addr     string // and where others reach it
	// Where says where a server is now; false: where Raft's configuration has it.
	Where func(server string) (addr string, ok bool)
}

// Stream is a raft.StreamLayer. It knows its connections and closes them with itself: Raft's own
// transport leaves those it pooled open.
type Stream struct {
	cfg      Config
	ctx      context.Context // ends with Close: Raft gives no contexts
	cancel   context.CancelFunc
	accepted chan net.Conn
	wg       sync.WaitGroup

	mu     sync.Mutex
	conns  map[*trackedConn]struct{}
	closed bool
}

var _ raft.StreamLayer = (*Stream)(nil)

// helloTimeout bounds how long a new stream may take to say whom it is for.
const helloTimeout = 5 * time.Second

// NewStream makes a Stream and begins to accept. Close it.
func NewStream(ctx context.Context, cfg Config) *Stream {
	s := &Stream{cfg: cfg, accepted: make(chan net.Conn), conns: map[*trackedConn]struct{}{}}
	s.ctx, s.cancel = context.WithCancel(context.WithoutCancel(ctx))
	s.wg.Go(s.listen)
	return s
}

// Addr implements net.Listener.
func (s *Stream) Addr() net.Addr { return address(Address(s.cfg.Addr, s.cfg.Server)) }

type address string

func (address) Network() string  { return "raft" }
func (a address) String() string { return string(a) }

// listen welcomes connections; each in its own time, so that a silent one holds up nobody.
func (s *Stream) listen() {
	for {
		c, err := s.cfg.Listener.Accept()
		if err != nil {
			return // closed: wire's listeners have no other errors
		}
		s.wg.Go(func() { s.welcome(c) })
	}
}

func (s *Stream) welcome(c net.Conn) {
	t, err := s.track(c)
	if err != nil {
		return
	}
	_ = c.SetReadDeadline(time.Now().Add(helloTimeout))
	var n [1]byte
	_, err = io.ReadFull(c, n[:])
	name := make([]byte, n[0])
	if err == nil {
		_, err = io.ReadFull(c, name)
	}
	if err != nil || string(name) != s.cfg.Server || c.SetReadDeadline(time.Time{}) != nil {
		_ = t.Close()
		return
	}
	select {
	case s.accepted <- t:
	case <-s.ctx.Done():
		_ = t.Close()
	}
}

// Accept implements net.Listener.
func (s *Stream) Accept() (net.Conn, error) {
	select {
	case c := <-s.accepted:
		return c, nil
	case <-s.ctx.Done():
		return nil, net.ErrClosed
	}
}

// Dial implements raft.StreamLayer.
func (s *Stream) Dial(to raft.ServerAddress, timeout time.Duration) (net.Conn, error) {
	ctx, cancel := context.WithTimeout(s.ctx, timeout)
	defer cancel()
	addr, server := Split(to)
	if s.cfg.Where != nil {
		if now, ok := s.cfg.Where(server); ok {
			addr = now
		}
	}
	if len(server) > 255 {
		return nil, errors.New("server name of " + server + " is too long")
	}
	c, err := s.cfg.Dial(ctx, addr)
	if err != nil {
		return nil, err
	}
	t, err := s.track(c)
	if err != nil {
		return nil, err
	}
	_ = c.SetWriteDeadline(time.Now().Add(timeout))
	if _, err := c.Write(append([]byte{byte(len(server))}, server...)); err != nil {
		return nil, errors.Join(err, t.Close())
	}
	_ = c.SetWriteDeadline(time.Time{})
	return t, nil
}

// Close closes the listener and every connection.
func (s *Stream) Close() error {
	s.mu.Lock()
	s.closed = true
	conns := s.conns
	s.conns = map[*trackedConn]struct{}{}
	s.mu.Unlock()
	s.cancel()
	err := s.cfg.Listener.Close()
	for c := range conns {
		_ = c.Conn.Close()
	}
	s.wg.Wait()
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
