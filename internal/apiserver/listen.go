package apiserver

import (
	"context"
	"errors"
	"fmt"
	"net"
	"syscall"
)

// listen binds the API port; its errors tell an operator what to do.
func listen(ctx context.Context, addr string) (net.Listener, error) {
	l, err := (&net.ListenConfig{}).Listen(ctx, "tcp", addr)
	switch {
	case err == nil:
		return l, nil
	case errors.Is(err, syscall.EADDRINUSE):
		return nil, fmt.Errorf("listen %s: %w: another program has the port; choose another with --api-addr", addr, syscall.EADDRINUSE)
	case errors.Is(err, syscall.EADDRNOTAVAIL):
		return nil, fmt.Errorf("listen %s: %w: no interface of this machine has it; choose another with --api-addr", addr, syscall.EADDRNOTAVAIL)
	case errors.Is(err, syscall.EACCES):
		return nil, fmt.Errorf("listen %s: %w: ports below 1024 need root; choose another with --api-addr", addr, syscall.EACCES)
	}
	return nil, fmt.Errorf("listen %s: %w", addr, err)
}

// memoryListener stands for the port of a server that never serves: it has an address and
// accepts nothing.
type memoryListener struct{ done chan struct{} }

func (l memoryListener) Accept() (net.Conn, error) {
	<-l.done
	return nil, net.ErrClosed
}
func (l memoryListener) Close() error { return nil }
func (l memoryListener) Addr() net.Addr {
	return &net.TCPAddr{IP: net.IPv4(127, 0, 0, 1), Port: 6443}
}
