package wire

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"net"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const proto = "psw-test/1"

// wireOf opens a Wire on a free port of this host; it is closed with the test.
func wireOf(tb testing.TB, trust Trust, change ...func(*Config)) *Wire {
	tb.Helper()
	cfg := Config{Addr: "127.0.0.1:0", Trust: trust, Log: slog.New(slog.DiscardHandler)}
	for _, f := range change {
		f(&cfg)
	}
	return opened(tb, func() (*Wire, error) { return Listen(tb.Context(), cfg) })
}

// hasty are nodes a and b of one cluster with little patience.
func hasty(tb testing.TB, wait patience) (a, b *Wire) {
	tb.Helper()
	ca := newCA(tb)
	one := func(name string) *Wire {
		return opened(tb, func() (*Wire, error) {
			return listen(tb.Context(), Config{Addr: "127.0.0.1:0", Trust: identify(ca.node(name), ca.pool())}, wait)
		})
	}
	return one("a"), one("b")
}

func opened(tb testing.TB, open func() (*Wire, error)) *Wire {
	tb.Helper()
	w, err := open()
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() {
		if err := w.Close(); err != nil {
			tb.Error(err)
		}
	})
	return w
}

// two are nodes a and b of one cluster.
func two(tb testing.TB) (ca *authority, a, b *Wire) {
	tb.Helper()
	ca = newCA(tb)
	return ca, wireOf(tb, identify(ca.node("a"), ca.pool())), wireOf(tb, identify(ca.node("b"), ca.pool()))
}

// echo answers a stream with its own bytes.
func echo(_ context.Context, c *Conn) { _, _ = io.Copy(c, c) }

// works fails the test unless the stream echoes.
func works(tb testing.TB, c net.Conn) {
	tb.Helper()
	if err := echoes(c); err != nil {
		tb.Fatalf("the stream does not work: %v", err)
	}
}

func echoes(c net.Conn) error {
	if err := c.SetDeadline(time.Now().Add(10 * time.Second)); err != nil {
		return err
	}
	if _, err := io.WriteString(c, "hello"); err != nil {
		return err
	}
	b := make([]byte, 5)
	if _, err := io.ReadFull(c, b); err != nil {
		return err
	}
	if string(b) != "hello" {
		return errors.New("something else came back: " + string(b))
	}
	return c.SetDeadline(time.Time{})
}

// over fails the test unless the peer ends the stream, and soon.
func over(tb testing.TB, c net.Conn) {
	tb.Helper()
	_ = c.SetDeadline(time.Now().Add(10 * time.Second))
	var b [1]byte
	n, err := c.Read(b[:])
	var late net.Error
	if err == nil || errors.As(err, &late) && late.Timeout() {
		tb.Fatalf("the stream is still open: %d bytes, %v", n, err)
	}
}

func mustDial(tb testing.TB, w *Wire, to *Wire, proto string) *Conn {
	tb.Helper()
	c, err := w.Dial(tb.Context(), to.Addr().String(), proto)
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() { c.Close() })
	return c
}

func eventually(tb testing.TB, what string, f func() bool) {
	tb.Helper()
	deadline := time.Now().Add(10 * time.Second)
	for tick := time.NewTicker(time.Millisecond); !f(); <-tick.C {
		if time.Now().After(deadline) {
			tb.Fatalf("still not: %s", what)
		}
	}
}

func wantError(tb testing.TB, err error, texts ...string) {
	tb.Helper()
	if err == nil {
		tb.Fatalf("no error, want one that says %q", texts)
	}
	for _, text := range texts {
		if !strings.Contains(err.Error(), text) {
			tb.Errorf("error %q does not say %q", err, text)
		}
	}
}
