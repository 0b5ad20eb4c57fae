package simnet

import "net"

type listener struct {
	h        *Host
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
func (l *listener) Addr() net.Addr { return address(l.h.addr) }

// address is a host's, as streams tell it. It need not be numeric.
type address string

// Network implements net.Addr.
func (address) Network() string { return "tcp" }

func (a address) String() string { return string(a) }
