package pair

import (
	"cmp"
	"context"
	"fmt"
	"net"
	"os"
	"sync"

	"golang.org/x/sys/unix"
)

// Listener carries the API server's requests to this node's own agent: logs, exec, attach,
// port-forward. Every connection is a kernel socket pair, so nothing outside this process can reach
// it and the two halves behave like any other connection (deadlines, half-close, backpressure).
type Listener struct {
	node   string
	conns  chan net.Conn
	closed chan struct{}
	once   sync.Once
}

// New returns the listener of a node's agent.
func New(node string) *Listener {
	return &Listener{node: node, conns: make(chan net.Conn), closed: make(chan struct{})}
}

// DialNode opens a stream to this node's own agent.
func (l *Listener) DialNode(ctx context.Context, node string) (net.Conn, error) {
	if node != l.node {
		return nil, fmt.Errorf("node %s is not reachable from node %s", node, l.node)
	}
	near, far, err := socketPair()
	if err != nil {
		return nil, fmt.Errorf("reach node %s: %w", node, err)
	}
	if l.Give(ctx, far) {
		return near, nil
	}
	near.Close()
	far.Close()
	return nil, fmt.Errorf("reach node %s: %w", node, cmp.Or(ctx.Err(), net.ErrClosed))
}

// Give hands a connection to the agent; false when nobody takes it any more.
func (l *Listener) Give(ctx context.Context, c net.Conn) bool {
	select {
	case l.conns <- c:
		return true
	case <-l.closed:
	case <-ctx.Done():
	}
	return false
}

// Accept implements net.Listener.
func (l *Listener) Accept() (net.Conn, error) {
	select {
	case c := <-l.conns:
		return c, nil
	case <-l.closed:
		return nil, net.ErrClosed
	}
}

// Close implements net.Listener.
func (l *Listener) Close() error {
	l.once.Do(func() { close(l.closed) })
	return nil
}

// Addr implements net.Listener.
func (l *Listener) Addr() net.Addr { return &net.UnixAddr{Name: "node/" + l.node, Net: "unix"} }

func socketPair() (near, far net.Conn, err error) {
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
	if err != nil {
		return nil, nil, err
	}
	conns := [2]net.Conn{}
	for i, fd := range fds {
		f := os.NewFile(uintptr(fd), "loopback")
		c, err2 := net.FileConn(f) // duplicates the descriptor
		f.Close()
		if err2 != nil {
			err = err2
			continue
		}
		conns[i] = c
	}
	if err != nil {
		for _, c := range conns {
			if c != nil {
				c.Close()
			}
		}
		return nil, nil, err
	}
	return conns[0], conns[1], nil
}
