package wire

import (
	"bytes"
	"context"
	"crypto/rand"
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

// calling are a node and the address of another that answers its calls.
func calling(tb testing.TB, answer func(ctx context.Context, peer string, req []byte) []byte) (a, b *Wire, call func(ctx context.Context, req []byte) ([]byte, error)) {
	tb.Helper()
	_, a, b = two(tb)
	b.Serve(proto, answer)
	return a, b, func(ctx context.Context, req []byte) ([]byte, error) {
		return a.Call(ctx, b.Addr().String(), proto, req)
	}
}

func same(_ context.Context, _ string, req []byte) []byte { return req }

func TestCallKeepsOneConnection(t *testing.T) {
	a, b, call := calling(t, func(_ context.Context, peer string, req []byte) []byte { return append(req, " from "+peer...) })
	for range 10 {
		if got, err := call(t.Context(), []byte("hello")); err != nil || string(got) != "hello from a" {
			t.Fatalf("%q, %v", got, err)
		}
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	if len(a.conns) != 1 || len(a.links) != 1 {
		t.Errorf("%d connections, %d links", len(a.conns), len(a.links))
	}
	_ = b
}

func TestCallsAtOnce(t *testing.T) {
	var running, most atomic.Int32
	_, _, call := calling(t, func(_ context.Context, _ string, req []byte) []byte {
		n := running.Add(1)
		defer running.Add(-1)
		for m := most.Load(); n > m && !most.CompareAndSwap(m, n); m = most.Load() {
		}
		return bytes.ToUpper(req)
	})
	var all sync.WaitGroup
	for i := range 64 {
		all.Go(func() {
			for j := range 50 {
				size := (i*j*37)%2000 + 8
				if i == 0 && j%10 == 0 {
					size = 300 << 10
				}
				req := bytes.Repeat([]byte{'a' + byte(i+j)%26}, size)
				got, err := call(t.Context(), req)
				if err != nil || !bytes.Equal(got, bytes.ToUpper(req)) {
					t.Errorf("call %d of %d: %d bytes, %v", j, i, len(got), err)
					return
				}
			}
		})
	}
	all.Wait()
	if most.Load() < 2 {
		t.Error("calls were answered one after another")
	}
}

// TestCallsDoNotWaitForEachOther: a slow answer delays nobody, and more calls than one connection takes wait.
func TestCallsDoNotWaitForEachOther(t *testing.T) {
	release, running := make(chan struct{}), make(chan struct{}, 2*maxCalls)
	a, b, call := calling(t, func(_ context.Context, _ string, req []byte) []byte {
		if string(req) == "slow" {
			running <- struct{}{}
			<-release
		}
		return req
	})
	var all sync.WaitGroup
	ask := func() {
		if got, err := call(t.Context(), []byte("slow")); err != nil || string(got) != "slow" {
			t.Errorf("%q, %v", got, err)
		}
	}
	for range maxCalls - 1 {
		all.Go(ask)
	}
	for range maxCalls - 1 {
		<-running
	}
	if got, err := call(t.Context(), []byte("fast")); err != nil || string(got) != "fast" {
		t.Errorf("%q, %v", got, err)
	}
	for range 10 {
		all.Go(ask)
	}
	<-running
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Millisecond)
	defer cancel()
	if _, err := call(ctx, []byte("fast")); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("call beyond the bound: %v", err)
	}
	if n := len(running); n != 0 {
		t.Errorf("%d calls beyond the bound are running", n)
	}
	if got, err := b.Call(t.Context(), a.Addr().String(), proto, nil); !errors.Is(err, ErrRefused) || !errors.Is(err, ErrUnsent) {
		t.Errorf("the other way: %q, %v", got, err)
	}
	close(release)
	all.Wait()
}

func TestCallGivenUp(t *testing.T) {
	begun, ended := make(chan struct{}), make(chan error, 1)
	_, _, call := calling(t, func(ctx context.Context, _ string, req []byte) []byte {
		if string(req) == "wait" {
			close(begun)
			<-ctx.Done()
			ended <- ctx.Err()
		}
		return req
	})
	ctx, cancel := context.WithCancel(t.Context())
	go func() { <-begun; cancel() }()
	if _, err := call(ctx, []byte("wait")); !errors.Is(err, context.Canceled) {
		t.Errorf("err = %v", err)
	}
	if err := <-ended; !errors.Is(err, context.Canceled) {
		t.Errorf("the answer's context: %v", err)
	}
	if got, err := call(t.Context(), []byte("next")); err != nil || string(got) != "next" {
		t.Errorf("next call: %q, %v", got, err)
	}
	ctx, cancel = context.WithCancel(t.Context())
	cancel()
	if _, err := call(ctx, []byte("late")); !errors.Is(err, context.Canceled) {
		t.Errorf("call with an ended context: %v", err)
	}
}

// A caller may try again what certainly did not go out, and only that.
func TestUnsent(t *testing.T) {
	begun := make(chan struct{}, 1)
	a, b, call := calling(t, func(ctx context.Context, _ string, req []byte) []byte {
		begun <- struct{}{}
		<-ctx.Done()
		return req
	})
	failed := make(chan error)
	go func() {
		_, err := call(t.Context(), []byte("under way"))
		failed <- err
	}()
	<-begun
	addr := b.Addr().String()
	if err := b.Close(); err != nil {
		t.Error(err)
	}
	if err := <-failed; err == nil || errors.Is(err, ErrUnsent) {
		t.Errorf("the peer had it and ended: %v", err)
	}
	if _, err := a.Call(t.Context(), addr, proto, nil); !errors.Is(err, ErrUnsent) {
		t.Errorf("nothing listens: %v, want ErrUnsent", err)
	}
}

func TestCallSizes(t *testing.T) {
	_, _, call := calling(t, func(_ context.Context, _ string, req []byte) []byte {
		if len(req) == 8 {
			return make([]byte, binary.BigEndian.Uint64(req))
		}
		return req
	})
	for _, size := range []int{0, 1, firstRead, firstRead + 1, MaxMessage} {
		req := make([]byte, size)
		_, _ = rand.Read(req)
		if got, err := call(t.Context(), req); err != nil || !bytes.Equal(got, req) {
			t.Errorf("%d bytes: %d came back, %v", size, len(got), err)
		}
	}
	_, err := call(t.Context(), make([]byte, MaxMessage+1))
	wantError(t, err, "the request has 8388609 bytes")
	_, err = call(t.Context(), binary.BigEndian.AppendUint64(nil, MaxMessage+1))
	wantError(t, err, "the answer has 8388609 bytes")
	if got, err := call(t.Context(), []byte("still")); err != nil || string(got) != "still" {
		t.Errorf("afterwards: %q, %v", got, err)
	}
}

// TestCallOverAConnectionThatEnded: the peer restarts at rest, again and again, and no call notices.
func TestCallOverAConnectionThatEnded(t *testing.T) {
	ca := newCA(t)
	a := wireOf(t, identify(ca.node("a"), ca.pool()))
	addr, answered := "127.0.0.1:0", 0
	for i := range 20 {
		b, err := Listen(t.Context(), Config{Addr: addr, Trust: identify(ca.node("b"), ca.pool())})
		if err != nil {
			t.Fatal(err)
		}
		addr = b.Addr().String()
		b.Serve(proto, func(_ context.Context, _ string, req []byte) []byte { answered++; return req })
		for range 2 {
			if got, err := a.Call(t.Context(), addr, proto, []byte("x")); err != nil || string(got) != "x" {
				t.Errorf("restart %d: %q, %v", i, got, err)
			}
		}
		b.Close()
	}
	if answered != 40 {
		t.Errorf("%d calls were answered, want 40", answered)
	}
	_, err := a.Call(t.Context(), addr, proto, []byte("x"))
	wantError(t, err, "refused")
}

// TestCallWhosePeerEnds: what has been sent is not sent twice.
func TestCallWhosePeerEnds(t *testing.T) {
	begun := make(chan struct{})
	var times atomic.Int32
	a, b, call := calling(t, func(ctx context.Context, _ string, _ []byte) []byte {
		times.Add(1)
		begun <- struct{}{}
		<-ctx.Done()
		return nil
	})
	failed := make(chan error)
	go func() { _, err := call(t.Context(), []byte("x")); failed <- err }()
	<-begun
	b.cut(func(c *Conn) bool { return c.route.proto == proto })
	wantError(t, <-failed, "ended before the answer came")
	go func() { _, err := call(t.Context(), []byte("x")); failed <- err }()
	<-begun
	a.Close()
	wantError(t, <-failed, "ended before the answer came")
	if n := times.Load(); n != 2 {
		t.Errorf("asked %d times", n)
	}
}

// TestCallToAPeerThatDoesNotRead: deadlines hold although nothing can be written.
func TestCallToAPeerThatDoesNotRead(t *testing.T) {
	_, a, b := two(t)
	b.Handle(proto, func(ctx context.Context, _ *Conn) { <-ctx.Done() })
	ctx, cancel := context.WithTimeout(t.Context(), 200*time.Millisecond)
	defer cancel()
	var all sync.WaitGroup
	for range 4 {
		all.Go(func() {
			if _, err := a.Call(ctx, b.Addr().String(), proto, make([]byte, MaxMessage)); !errors.Is(err, context.DeadlineExceeded) {
				t.Errorf("err = %v", err)
			}
		})
	}
	begun := time.Now()
	all.Wait()
	if d := time.Since(begun); d > 3*time.Second {
		t.Errorf("took %v", d)
	}
}

// TestCallsBreakNothing: a peer with a good certificate and bad manners loses its connection, nothing else.
func TestCallsBreakNothing(t *testing.T) {
	a, b, call := calling(t, same)
	raw := func(f frame) []byte {
		var b bytes.Buffer
		_ = writeFrame(&b, f)
		return b.Bytes()
	}
	for name, said := range map[string][]byte{
		"an answer":     raw(frame{kind: answer, id: 1}),
		"a failure":     raw(frame{kind: failure, id: 1}),
		"unknown kind":  raw(frame{kind: 9, id: 1}),
		"too long":      binary.BigEndian.AppendUint32(nil, MaxMessage+1),
		"cancels a lot": append(raw(frame{kind: cancel, id: 1, body: []byte("x")}), 0),
		"noise":         bytes.Repeat([]byte{0xa5}, 1000),
	} {
		t.Run(name, func(t *testing.T) {
			c := mustDial(t, a, b, proto)
			_, _ = c.Write(append(said, make([]byte, headerSize)...))
			over(t, c)
			if got, err := call(t.Context(), []byte("x")); err != nil || string(got) != "x" {
				t.Errorf("%q, %v", got, err)
			}
		})
	}
	t.Run("as the answering end", func(t *testing.T) {
		b.Handle("psw-bad/1", func(_ context.Context, c *Conn) { _, _ = c.Write(raw(frame{kind: request, id: 1})) })
		_, err := a.Call(t.Context(), b.Addr().String(), "psw-bad/1", nil)
		wantError(t, err, "psw-bad/1")
	})
}

func TestSameCallTwiceEndsTheConnection(t *testing.T) {
	_, a, b := two(t)
	b.Serve(proto, func(ctx context.Context, _ string, _ []byte) []byte { <-ctx.Done(); return nil })
	c := mustDial(t, a, b, proto)
	var twice bytes.Buffer
	_ = writeFrame(&twice, frame{kind: request, id: 7})
	_ = writeFrame(&twice, frame{kind: request, id: 7})
	_, _ = c.Write(twice.Bytes())
	over(t, c)
}

// TestCallsWhileConnectionsBreak: whatever happens to the connections, an answer belongs to its question, and
// a call is answered, or fails.
func TestCallsWhileConnectionsBreak(t *testing.T) {
	a, b, call := calling(t, same)
	done := make(chan struct{})
	var breaking, asking sync.WaitGroup
	breaking.Go(func() {
		tick := time.NewTicker(5 * time.Millisecond)
		defer tick.Stop()
		for end := a; ; {
			select {
			case <-tick.C:
			case <-done:
				return
			}
			end.cut(func(c *Conn) bool { return c.Peer != "" })
			if end = b; time.Now().UnixNano()%2 == 0 {
				end = a
			}
		}
	})
	var answered, failed atomic.Int32
	for i := range 8 {
		asking.Go(func() {
			for j := range 200 {
				req := fmt.Sprintf("%d/%d %s", i, j, strings.Repeat("x", j*50))
				ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
				got, err := call(ctx, []byte(req))
				cancel()
				switch {
				case errors.Is(err, context.DeadlineExceeded):
					t.Errorf("call %s hangs: %v", req[:5], err)
				case err != nil:
					failed.Add(1)
				case string(got) != req:
					t.Errorf("asked %.10q, answered %.10q", req, got)
				default:
					answered.Add(1)
				}
			}
		})
	}
	asking.Wait()
	close(done)
	breaking.Wait()
	t.Logf("%d answered, %d failed", answered.Load(), failed.Load())
	if answered.Load() == 0 {
		t.Error("nothing was answered")
	}
	if got, err := call(t.Context(), []byte("x")); err != nil || string(got) != "x" {
		t.Errorf("afterwards: %q, %v", got, err)
	}
}

func TestCallToNobody(t *testing.T) {
	_, a, _ := two(t)
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	l.Close()
	_, err = a.Call(t.Context(), l.Addr().String(), proto, nil)
	wantError(t, err, l.Addr().String(), "connection refused")
}
