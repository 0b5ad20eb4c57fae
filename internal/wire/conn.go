package wire

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"sync"
	"sync/atomic"
	"syscall"
)

// errSilent ends a connection whose peer answers nothing any more.
var errSilent = fmt.Errorf("the peer has gone silent: %w", syscall.ETIMEDOUT)

// Conn is a connection to a peer.
type Conn struct {
	net.Conn
	// Peer is the node at the other end, as its certificate says; "" for a guest.
	Peer string

	w      *Wire
	route  *route // by which it was accepted; nil when dialed
	addr   string // that was dialed; "" when accepted
	raw    *net.TCPConn
	silent atomic.Bool
	close  sync.Once

	// What the ends have shown each other; guarded by the Wire's mu once the connection is one of the open ones.
	chain []*x509.Certificate // the peer's; nil for a guest
	shown *tls.Certificate    // this node's, when it has dialed and was asked for it
}

// Read implements net.Conn.
func (c *Conn) Read(p []byte) (int, error) {
	n, err := c.Conn.Read(p)
	return n, c.why(err)
}

// Write implements net.Conn.
func (c *Conn) Write(p []byte) (int, error) {
	n, err := c.Conn.Write(p)
	return n, c.why(err)
}

func (c *Conn) why(err error) error {
	if err != nil && c.silent.Load() {
		return errSilent
	}
	return err
}

// CloseWrite tells the peer that nothing more will come; what it sends can still be read.
func (c *Conn) CloseWrite() error {
	t, ok := c.Conn.(*tls.Conn)
	if !ok {
		return errors.ErrUnsupported
	}
	return t.CloseWrite()
}

// Close closes the connection. Closing it again does nothing.
func (c *Conn) Close() error {
	err := net.ErrClosed
	c.close.Do(func() {
		c.w.forget(c)
		err = c.Conn.Close()
	})
	if errors.Is(err, net.ErrClosed) {
		return nil
	}
	return err
}

// abort drops the connection without a word to its silent peer. Its owner notices, and closes it.
func (c *Conn) abort() {
	c.silent.Store(true)
	_ = c.raw.SetLinger(0)
	_ = c.raw.Close()
}

func (w *Wire) forget(c *Conn) {
	w.mu.Lock()
	defer w.mu.Unlock()
	delete(w.conns, c)
}
