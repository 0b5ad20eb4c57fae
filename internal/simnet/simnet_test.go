package simnet

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/netip"
	"strings"
	"syscall"
	"testing"
	"testing/synctest"
	"time"
)

// two are hosts that echo calls, and the ends of a stream between them.
type two struct {
	*testing.T
	n         *Net
	a, b      *Host
	near, far net.Conn
}

// simulate runs a test in virtual time.
func simulate(t *testing.T, q Quality, run func(x two)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		echo := func(_ context.Context, request []byte) []byte { return request }
		x := two{T: t, n: New(rand.New(rand.NewPCG(1, 1)), q)}
		x.a, x.b = x.n.Plug(t.Context(), "a", "10.0.0.1:1", echo), x.n.Plug(t.Context(), "b", "10.0.0.2:1", echo)
		l, err := x.b.Listen("p")
		if err != nil {
			t.Fatal(err)
		}
		if _, err := x.b.Listen("p"); err == nil {
			t.Error("two listeners for one protocol")
		}
		accepted := make(chan net.Conn, 1)
		go func() {
			c, _ := l.Accept()
			accepted <- c
		}()
		if x.near, err = x.a.Dial(t.Context(), "10.0.0.2:1", "p"); err != nil {
			t.Fatal(err)
		}
		x.far = <-accepted
		run(x)
		x.a.Unplug(false)
		x.b.Unplug(false)
	})
}

// cutBoth is a rule for Sever.
func cutBoth(from, to string) bool { return from != to }

func read(c net.Conn, n int) (string, error) {
	b := make([]byte, n)
	k, err := io.ReadFull(c, b)
	return string(b[:k]), err
}

// A stream delivers everything once and in order, whatever the network does to its parts.
func TestStreamsAreInOrder(t *testing.T) {
	simulate(t, Quality{Delay: time.Millisecond, Loss: 0.3, Double: 0.3}, func(x two) {
		var sent strings.Builder
		for i := range 200 {
			part := fmt.Sprint(i, " ")
			sent.WriteString(part)
			if _, err := io.WriteString(x.near, part); err != nil {
				x.Fatal(err)
			}
		}
		_ = x.near.Close()
		if got, err := io.ReadAll(x.far); err != nil || string(got) != sent.String() {
			x.Errorf("got %q, %v", got, err)
		}
	})
}

// What meets a cut comes when the cut is over, unless that takes too long: then both ends notice.
func TestCuts(t *testing.T) {
	for _, tt := range []struct {
		cut  time.Duration
		rule func(from, to string) bool
		want error
	}{
		{silence / 2, cutBoth, nil},
		{2 * silence, cutBoth, syscall.ETIMEDOUT},
		{2 * silence, func(from, _ string) bool { return from == "a" }, syscall.ETIMEDOUT},
	} {
		simulate(t, Quality{Delay: time.Millisecond}, func(x two) {
			x.n.Sever(tt.rule)
			if x.n.Meet(x.a, x.b) {
				x.Error("they meet across a cut")
			}
			if _, err := io.WriteString(x.near, "hello"); err != nil {
				x.Fatal(err)
			}
			time.AfterFunc(tt.cut, func() { x.n.Sever(nil) })
			begin := time.Now()
			got, err := read(x.far, 5)
			took := time.Since(begin)
			switch {
			case !errors.Is(err, tt.want), err == nil && got != "hello":
				x.Errorf("cut for %v: %q, %v; want %v", tt.cut, got, err, tt.want)
			case err == nil && took < tt.cut, err != nil && took > 2*silence:
				x.Errorf("cut for %v: noticed after %v", tt.cut, took)
			}
			if _, err := x.near.Write([]byte("x")); !errors.Is(err, tt.want) {
				x.Errorf("cut for %v: the other end writes with %v", tt.cut, err)
			}
		})
	}
}

// A host whose process ended is noticed at once; one that lost power is noticed by its silence.
func TestUnplug(t *testing.T) {
	for power, want := range map[bool]error{false: syscall.ECONNRESET, true: syscall.ETIMEDOUT} {
		simulate(t, Quality{Delay: time.Millisecond}, func(x two) {
			x.b.Unplug(power)
			begin := time.Now()
			if _, err := read(x.near, 1); !errors.Is(err, want) || (time.Since(begin) >= silence) != power {
				x.Errorf("power lost %v: %v after %v", power, err, time.Since(begin))
			}
			if _, err := x.far.Write([]byte("x")); err == nil {
				x.Errorf("power lost %v: a host that is off writes", power)
			}
			refusal := map[bool]error{false: syscall.ECONNREFUSED, true: syscall.ETIMEDOUT}[power]
			if _, err := x.a.Call(x.Context(), "10.0.0.2:1", nil); !errors.Is(err, refusal) {
				x.Errorf("power lost %v: a call says %v", power, err)
			}
			if _, err := x.b.Listen("q"); !errors.Is(err, net.ErrClosed) {
				x.Errorf("a host that is off listens: %v", err)
			}
		})
	}
}

// A machine that lost power and is back knows nothing of its streams.
func TestPlugAgain(t *testing.T) {
	simulate(t, Quality{Delay: time.Millisecond}, func(x two) {
		x.b.Unplug(true)
		<-time.After(silence / 2)
		again := x.n.Plug(x.Context(), "b", "10.0.0.2:1", func(context.Context, []byte) []byte { return []byte("new") })
		defer again.Unplug(false)
		if _, err := read(x.near, 1); !errors.Is(err, syscall.ECONNRESET) {
			x.Errorf("the old stream: %v", err)
		}
		if got, err := x.a.Call(x.Context(), "10.0.0.2:1", nil); err != nil || string(got) != "new" {
			x.Errorf("%q, %v", got, err)
		}
	})
}

func TestCallsAndReset(t *testing.T) {
	simulate(t, Quality{Delay: time.Millisecond}, func(x two) {
		if got, err := x.a.Call(x.Context(), "10.0.0.2:1", []byte("hi")); err != nil || string(got) != "hi" {
			x.Errorf("%q, %v", got, err)
		}
		for _, addr := range []string{"10.0.0.3:1", "nobody"} {
			if _, err := x.a.Call(x.Context(), addr, nil); !errors.Is(err, syscall.ECONNREFUSED) {
				x.Errorf("call %s: %v", addr, err)
			}
		}
		if _, err := x.a.Dial(x.Context(), "10.0.0.2:1", "other"); !errors.Is(err, syscall.ECONNREFUSED) {
			x.Errorf("a protocol that nobody listens for: %v", err)
		}
		x.n.Sever(cutBoth)
		ctx, cancel := context.WithTimeout(x.Context(), time.Second)
		defer cancel()
		if _, err := x.a.Call(ctx, "10.0.0.2:1", nil); !errors.Is(err, context.DeadlineExceeded) {
			x.Errorf("a call across a cut: %v", err)
		}
		x.n.Sever(nil)
		x.n.Reset()
		if _, err := read(x.near, 1); !errors.Is(err, syscall.ECONNRESET) {
			x.Errorf("after a reset: %v", err)
		}
		if _, err := x.a.Call(x.Context(), "10.0.0.2:1", nil); err != nil {
			x.Errorf("a call after it: %v", err)
		}
	})
}

// Datagrams are lost and doubled as often as was said, and not at all when nothing was.
func TestDatagrams(t *testing.T) {
	const sent = 2000
	for _, q := range []Quality{{}, {Loss: 0.25}, {Double: 0.25}, {Loss: 1}} {
		q.Delay = time.Millisecond
		simulate(t, q, func(x two) {
			from, to := x.a.Packets(), x.b.Packets()
			got := 0
			go func() {
				b := make([]byte, 10)
				for {
					n, addr, err := to.ReadFrom(b)
					if err != nil {
						return
					}
					if string(b[:n]) != "hi" || addr.String() != "10.0.0.1:1" {
						x.Errorf("%q from %s", b[:n], addr)
					}
					got++
				}
			}()
			for range sent {
				if _, err := from.WriteTo([]byte("hi"), net.UDPAddrFromAddrPort(netip.MustParseAddrPort("10.0.0.2:1"))); err != nil {
					x.Fatal(err)
				}
				<-time.After(time.Millisecond)
			}
			<-time.After(time.Second)
			synctest.Wait()
			if want := sent * (1 - q.Loss) * (1 + q.Double); float64(got) < want*0.95 || float64(got) > want*1.05 {
				x.Errorf("%+v: %d of %d came, want some %.0f", q, got, sent, want)
			}
			_ = to.Close()
		})
	}
}
