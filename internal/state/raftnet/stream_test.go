package raftnet_test

import (
	"context"
	"errors"
	"io"
	"net"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/podman-swarm/podman-swarm/internal/state/raftnet"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func stream(t *testing.T, server string) *raftnet.Stream {
	t.Helper()
	l, err := (&net.ListenConfig{}).Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	s := raftnet.NewStream(t.Context(), raftnet.Config{
		Listener: l, Server: server, Addr: l.Addr().String(),
		Dial: func(ctx context.Context, addr string) (net.Conn, error) {
			return (&net.Dialer{}).DialContext(ctx, "tcp", addr)
		},
		Where: func(server string) (string, bool) { return l.Addr().String(), server == "moved.1" },
	})
	t.Cleanup(func() { _ = s.Close() })
	return s
}

// A stream is for one server, not for whoever is at its address now; it finds one that moved.
func TestStreamIsForOneServer(t *testing.T) {
	for _, tt := range []struct {
		server, dial string
		want         bool
	}{
		{"n1.aa", "", true},
		{"n1.bb", "n1.aa", false},
		{"moved.1", "moved.1", true},
	} {
		s := stream(t, tt.server)
		at := s.Addr().String()[:len(s.Addr().String())-len(tt.server)-1]
		if tt.server == "moved.1" {
			at = "192.0.2.1:1"
		}
		if tt.dial == "" {
			tt.dial = tt.server
		}
		c, err := s.Dial(raftnet.Address(at, tt.dial), time.Second)
		if err != nil {
			t.Fatal(err)
		}
		if !tt.want {
			if _, err := c.Read(make([]byte, 1)); !errors.Is(err, io.EOF) {
				t.Errorf("%s: a stream for %s: %v", tt.server, tt.dial, err)
			}
			continue
		}
		got, err := s.Accept()
		if err != nil {
			t.Fatal(err)
		}
		if _, err := c.Write([]byte("x")); err != nil {
			t.Fatal(err)
		}
		b := make([]byte, 1)
		if _, err := io.ReadFull(got, b); err != nil || b[0] != 'x' {
			t.Errorf("%s: read %q, %v", tt.server, b, err)
		}
	}
}

func TestCloseEndsEverything(t *testing.T) {
	s := stream(t, "n1.aa")
	silent, err := net.Dial("tcp", s.Addr().String()[:len(s.Addr().String())-len("#n1.aa")])
	if err != nil {
		t.Fatal(err)
	}
	defer silent.Close()
	c, err := s.Dial(raftnet.Address(silent.RemoteAddr().String(), "n1.aa"), time.Second)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := s.Accept(); err != nil { // the silent one is in nobody's way
		t.Fatal(err)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	if _, err := s.Accept(); !errors.Is(err, net.ErrClosed) {
		t.Errorf("accept: %v", err)
	}
	if _, err := c.Read(make([]byte, 1)); err == nil {
		t.Error("a connection is open")
	}
	if _, err := s.Dial("192.0.2.1:1#x", time.Second); err == nil {
		t.Error("dialled")
	}
}
