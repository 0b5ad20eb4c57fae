package wire

import (
	"context"
	"errors"
	"io"
	"net"
	"os"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// partition cuts the network between nodes: every segment of their connections is dropped where it arrives.
func partition(t *testing.T, nodes ...*Wire) {
	t.Helper()
	for _, w := range nodes {
		func() {
			w.mu.Lock()
			defer w.mu.Unlock() // deafen may end the test
			for c := range w.conns {
				deafen(t, c.raw)
			}
		}()
	}
}

func deafen(t *testing.T, c *net.TCPConn) {
	t.Helper()
	raw, err := c.SyscallConn()
	if err != nil {
		t.Fatal(err)
	}
	drop := []unix.SockFilter{{Code: unix.BPF_RET | unix.BPF_K, K: 0}}
	if e := raw.Control(func(fd uintptr) {
		err = unix.SetsockoptSockFprog(int(fd), unix.SOL_SOCKET, unix.SO_ATTACH_FILTER,
			&unix.SockFprog{Len: 1, Filter: &drop[0]})
	}); errors.Is(err, syscall.EPERM) && os.Geteuid() != 0 {
		t.Skip("this kernel lets nobody but root attach a filter to a socket")
	} else if e != nil || err != nil {
		t.Fatal(e, err)
	}
}

func TestSilentPeerIsNoticed(t *testing.T) {
	t.Parallel()
	for name, busy := range map[string]bool{"at rest": false, "with something under way": true} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			a, b := hasty(t, patience{handshake: 5 * time.Second, silence: time.Second, check: 100 * time.Millisecond})
			if !busy && testing.Short() {
				t.Skip("takes the five seconds of the kernel's keepalive")
			}
			b.Handle(proto, echo)
			ends := make(chan error, 1)
			c := mustDial(t, a, b, proto)
			works(t, c)
			partition(t, a, b)
			begun := time.Now()
			go func() {
				if busy {
					_, _ = c.Write(make([]byte, 1000))
				}
				_, err := c.Read(make([]byte, 1))
				ends <- err
			}()
			least, most := 3*time.Second, 9*time.Second
			if busy {
				least, most = time.Second/2, 3*time.Second
			}
			if err := <-ends; !errors.Is(err, syscall.ETIMEDOUT) {
				t.Errorf("err = %v, want a timeout", err)
			}
			if d := time.Since(begun); d < least || d > most {
				t.Errorf("noticed after %v", d)
			}
		})
	}
}

// TestPausedReaderIsNotSilent: a terminal that is paused for longer than a dead peer is waited for.
func TestPausedReaderIsNotSilent(t *testing.T) {
	t.Parallel()
	const silence = time.Second
	a, b := hasty(t, patience{handshake: 5 * time.Second, silence: silence, check: 50 * time.Millisecond})
	const size = 16 << 20
	b.Handle(proto, func(_ context.Context, c *Conn) {
		if n, err := c.Write(make([]byte, size)); err != nil {
			t.Errorf("wrote %d bytes: %v", n, err)
		}
	})
	c := mustDial(t, a, b, proto)
	paused := time.NewTimer(3 * silence)
	<-paused.C
	if n, err := io.Copy(io.Discard, c); n != size || err != nil {
		t.Errorf("read %d bytes: %v", n, err)
	}
}

// TestCallsOfASilentPeerEnd, also those whose caller has all the time in the world.
func TestCallsOfASilentPeerEnd(t *testing.T) {
	t.Parallel()
	a, b := hasty(t, patience{handshake: 5 * time.Second, silence: time.Second, check: 50 * time.Millisecond})
	asked := make(chan struct{}, 2)
	b.Serve(proto, func(ctx context.Context, _ string, _ []byte) []byte {
		asked <- struct{}{}
		<-ctx.Done()
		return nil
	})
	ends := make(chan error, 2)
	call := func() {
		_, err := a.Call(t.Context(), b.Addr().String(), proto, nil)
		ends <- err
	}
	go call()
	<-asked
	partition(t, a, b)
	go call() // this one is under way into the void
	for range 2 {
		if err := <-ends; !errors.Is(err, syscall.ETIMEDOUT) {
			t.Errorf("err = %v, want a timeout", err)
		}
	}
}

func TestSilent(t *testing.T) {
	for name, c := range map[string]struct {
		info unix.TCPInfo
		want bool
	}{
		"at rest":                    {unix.TCPInfo{Last_ack_recv: 60_000}, false},
		"just sent":                  {unix.TCPInfo{Unacked: 3, Last_ack_recv: 2900}, false},
		"lost":                       {unix.TCPInfo{Unacked: 3, Last_ack_recv: 5100}, true},
		"a closed window":            {unix.TCPInfo{Probes: 1, Last_ack_recv: 60_000}, false},
		"a closed window, then dead": {unix.TCPInfo{Probes: 3, Last_ack_recv: 60_000}, true},
		"probed in a row":            {unix.TCPInfo{Probes: 4, Last_ack_recv: 1000}, false},
	} {
		if got := silent(&c.info, 5*time.Second); got != c.want {
			t.Errorf("%s: %v, want %v", name, got, c.want)
		}
	}
}

func TestHungUp(t *testing.T) {
	_, a, b := two(t)
	l := b.Listener(proto)
	c := mustDial(t, a, b, proto)
	peer, err := l.Accept()
	if err != nil {
		t.Fatal(err)
	}
	if hungUp(c.raw) {
		t.Error("an open connection hung up")
	}
	if _, err := peer.Write([]byte("unread")); err != nil {
		t.Fatal(err)
	}
	peer.Close()
	if !hungUp(c.raw) {
		t.Error("a closed connection did not hang up")
	}
	c.Close()
	if !hungUp(c.raw) {
		t.Error("our own closed connection did not hang up")
	}
}
