package wire

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"errors"
	"io"
	"log/slog"
	"net"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

func TestStreamsAreBetweenNamedPeers(t *testing.T) {
	_, a, b := two(t)
	peers := make(chan string, 1)
	b.Handle(proto, func(ctx context.Context, c *Conn) { peers <- c.Peer; echo(ctx, c) })
	c := mustDial(t, a, b, proto)
	works(t, c)
	if c.Peer != "b" {
		t.Errorf("dialed node %q, want b", c.Peer)
	}
	if p := <-peers; p != "a" {
		t.Errorf("accepted node %q, want a", p)
	}
	if err := c.CloseWrite(); err != nil {
		t.Fatal(err)
	}
	if rest, err := io.ReadAll(c); err != nil || len(rest) > 0 {
		t.Errorf("after closing one half: %q, %v", rest, err)
	}
	if err := errors.Join(c.Close(), c.Close()); err != nil {
		t.Error(err)
	}
	mustDial(t, b, b, proto) // a node is a peer of itself
}

func TestUnknownProtocolIsRefused(t *testing.T) {
	_, a, b := two(t)
	b.Handle("psw-raft/1/one", echo)
	_, err := a.Dial(t.Context(), b.Addr().String(), "psw-raft/1/two")
	if !errors.Is(err, ErrRefused) {
		t.Fatalf("dial another lineage: %v, want ErrRefused", err)
	}
	wantError(t, err, b.Addr().String(), "psw-raft/1/two")
	if _, err := a.Call(t.Context(), b.Addr().String(), "psw-raft/1/two", nil); !errors.Is(err, ErrRefused) {
		t.Errorf("call another lineage: %v, want ErrRefused", err)
	}
	if _, err := a.Dial(t.Context(), b.Addr().String(), strings.Repeat("x", 300)); err == nil {
		t.Error("dialed a protocol that cannot be named")
	}
	works(t, mustDial(t, a, b, "psw-raft/1/one"))
}

func TestListenerEndsWithItsConnections(t *testing.T) {
	_, a, b := two(t)
	b.Handle("psw-other/1", echo)
	for range 3 { // a protocol may come back
		l := b.Listener(proto)
		if l.Addr().String() != b.Addr().String() {
			t.Errorf("listens on %v, want %v", l.Addr(), b.Addr())
		}
		other := mustDial(t, a, b, "psw-other/1")
		taken, waiting := mustDial(t, a, b, proto), mustDial(t, a, b, proto)
		c, err := l.Accept()
		if err != nil {
			t.Fatal(err)
		}
		if p := c.(*Conn).Peer; p != "a" {
			t.Errorf("accepted node %q, want a", p)
		}
		accept := make(chan error)
		if err := l.Close(); err != nil {
			t.Fatal(err)
		}
		go func() { _, err := l.Accept(); accept <- err }()
		if err := <-accept; !errors.Is(err, net.ErrClosed) {
			t.Errorf("accept after close: %v", err)
		}
		over(t, taken)
		over(t, waiting)
		works(t, other)
		if _, err := a.Dial(t.Context(), b.Addr().String(), proto); !errors.Is(err, ErrRefused) {
			t.Errorf("dial an ended protocol: %v, want ErrRefused", err)
		}
		if err := l.Close(); err != nil {
			t.Fatal(err)
		}
	}
}

func TestOldListenerDoesNotCloseTheNewOne(t *testing.T) {
	_, a, b := two(t)
	old := b.Listener(proto)
	old.Close()
	l := b.Listener(proto)
	old.Close()
	mustDial(t, a, b, proto)
	if _, err := l.Accept(); err != nil {
		t.Fatal(err)
	}
}

func TestListenerThatDoesNotAcceptIsFull(t *testing.T) {
	_, a, b := two(t)
	l := b.Listener(proto)
	var err error
	in := 0
	for ; err == nil && in <= 2*backlog; in++ {
		ctx, cancel := t.Context(), context.CancelFunc(func() {})
		if in >= backlog { // do not try for long
			ctx, cancel = context.WithTimeout(ctx, 300*time.Millisecond)
		}
		var c *Conn
		if c, err = a.Dial(ctx, b.Addr().String(), proto); err == nil {
			defer c.Close()
		}
		cancel()
	}
	if in--; in < backlog || in > backlog+1 { // the last one may be on its way into the queue
		t.Errorf("%d connections wait for Accept, then: %v", in, err)
	}
	for range 2 {
		if _, err := l.Accept(); err != nil {
			t.Fatal(err)
		}
	}
	mustDial(t, a, b, proto)
}

func TestProtocolHasOneOwner(t *testing.T) {
	_, a, _ := two(t)
	a.Handle(proto, echo)
	defer func() {
		if recover() == nil {
			t.Error("a second owner was taken")
		}
	}()
	a.Listener(proto)
}

func TestDialNode(t *testing.T) {
	_, a, b := two(t)
	var met atomic.Int32
	b.Handle(proto, func(ctx context.Context, c *Conn) { met.Add(1); echo(ctx, c) })
	_, err := a.DialNode(t.Context(), "c", b.Addr().String(), proto)
	wantError(t, err, "node b answers there, not c")
	_, err = a.DialNode(t.Context(), "", b.Addr().String(), proto)
	wantError(t, err, "no node was named")
	if met.Load() != 0 {
		t.Error("the wrong node was spoken to")
	}
	c, err := a.DialNode(t.Context(), "b", b.Addr().String(), proto)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	works(t, c)
}

func TestDialIsBounded(t *testing.T) {
	_, a, _ := two(t)
	mute, err := net.Listen("tcp", "127.0.0.1:0") // the kernel accepts, nobody answers
	if err != nil {
		t.Fatal(err)
	}
	defer mute.Close()
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	begun := time.Now()
	if _, err = a.Dial(ctx, mute.Addr().String(), proto); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("dial with a deadline: %v", err)
	}
	dialed := make(chan error)
	go func() { _, err := a.Dial(t.Context(), mute.Addr().String(), proto); dialed <- err }()
	go func() { _, err := a.Call(t.Context(), mute.Addr().String(), proto, nil); dialed <- err }()
	a.Close()
	for range 2 {
		if err := <-dialed; !errors.Is(err, net.ErrClosed) {
			t.Errorf("dial while closing: %v", err)
		}
	}
	if d := time.Since(begun); d > 3*time.Second {
		t.Errorf("took %v", d)
	}
}

// TestBurstOfPeers: more real peers at once than may shake hands at once, all of one address, all get in.
func TestBurstOfPeers(t *testing.T) {
	ca, first, to := two(t)
	to.Handle(proto, echo)
	nodes := []*Wire{first}
	for len(nodes) < 6 { // of which each dials eight times at once
		nodes = append(nodes, wireOf(t, identify(ca.node("a"), ca.pool())))
	}
	var all sync.WaitGroup
	for i := range 4 * maxFromOne {
		all.Go(func() {
			c, err := nodes[i%len(nodes)].Dial(t.Context(), to.Addr().String(), proto)
			if err != nil {
				t.Error(err)
				return
			}
			defer c.Close()
			if err := echoes(c); err != nil {
				t.Error(err)
			}
		})
	}
	all.Wait()
	for _, w := range nodes {
		if n := len(w.lanes.each); n != 0 {
			t.Errorf("%d lanes are left over", n)
		}
	}
}

func TestRefuseAtBothEnds(t *testing.T) {
	ca := newCA(t)
	var removed atomic.Pointer[string]
	none := ""
	removed.Store(&none)
	refuse := func(c *Config) {
		c.Refuse = func(cert *x509.Certificate) error {
			if name, _ := nodeName(cert); name == *removed.Load() {
				return errors.New("it was removed")
			}
			return nil
		}
	}
	a, b := wireOf(t, identify(ca.node("a"), ca.pool()), refuse), wireOf(t, identify(ca.node("b"), ca.pool()))
	a.Handle(proto, echo)
	b.Handle(proto, echo)
	dialed, accepted := mustDial(t, a, b, proto), mustDial(t, b, a, proto)
	a.Recheck()
	works(t, dialed)
	works(t, accepted)

	name := "b"
	removed.Store(&name)
	_, err := a.Dial(t.Context(), b.Addr().String(), proto)
	wantError(t, err, "node b is refused", "it was removed")
	_, err = b.Dial(t.Context(), a.Addr().String(), proto)
	if !errors.Is(err, ErrTurnedAway) {
		t.Errorf("dial by a removed node: %v, want ErrTurnedAway", err)
	}
	works(t, dialed)
	a.Recheck()
	over(t, dialed)
	over(t, accepted)

	removed.Store(&none)
	works(t, mustDial(t, a, b, proto))
	works(t, mustDial(t, b, a, proto))
}

func TestCloseEndsEverything(t *testing.T) {
	_, a, b := two(t)
	begun, left := make(chan struct{}), make(chan struct{})
	b.Handle(proto, func(ctx context.Context, c *Conn) {
		close(begun)
		<-ctx.Done()
		over(t, c)
		close(left)
	})
	l := b.Listener("psw-other/1")
	c, waiting := mustDial(t, a, b, proto), mustDial(t, a, b, "psw-other/1")
	half, err := net.Dial("tcp", b.Addr().String()) // a handshake under way
	if err != nil {
		t.Fatal(err)
	}
	defer half.Close()
	accept := make(chan error)
	go func() {
		_, _ = l.Accept()
		_, err := l.Accept()
		accept <- err
	}()
	<-begun
	if err := b.Close(); err != nil {
		t.Fatal(err)
	}
	select {
	case <-left:
	default:
		t.Error("Close did not wait for a handler")
	}
	if err := <-accept; !errors.Is(err, net.ErrClosed) {
		t.Errorf("accept: %v", err)
	}
	for _, c := range []net.Conn{c, waiting, half} {
		over(t, c)
	}
	if err := b.Close(); err != nil {
		t.Errorf("second Close: %v", err)
	}
	if _, err := b.Listener("psw-third/1").Accept(); !errors.Is(err, net.ErrClosed) {
		t.Errorf("accept after Close: %v", err)
	}
	if _, err := b.Dial(t.Context(), a.Addr().String(), proto); !errors.Is(err, net.ErrClosed) {
		t.Errorf("dial after Close: %v", err)
	}
	if _, err := b.Call(t.Context(), a.Addr().String(), proto, nil); !errors.Is(err, net.ErrClosed) {
		t.Errorf("call after Close: %v", err)
	}
}

func TestListenErrors(t *testing.T) {
	ca, a, _ := two(t)
	_, err := Listen(t.Context(), Config{Addr: a.Addr().String(), Trust: identify(ca.node("c"), ca.pool())})
	wantError(t, err, "listen for peers", "in use")
	_, err = Listen(t.Context(), Config{Addr: "127.0.0.1:0"})
	wantError(t, err, "Trust")
}

func TestRefusalsAreLoggedThinly(t *testing.T) {
	ca := newCA(t)
	var log bytes.Buffer
	b := wireOf(t, identify(ca.node("b"), ca.pool()), func(c *Config) { c.Log = slog.New(slog.NewTextHandler(&log, nil)) })
	b.Handle(proto, echo)
	stranger := wireOf(t, identify(newCA(t).node("x"), ca.pool()))
	for range 20 {
		if _, err := stranger.Dial(t.Context(), b.Addr().String(), proto); err == nil {
			t.Fatal("a stranger was let in")
		}
	}
	b.Close()
	if n := strings.Count(log.String(), "refuse a peer"); n < 1 || n > 5 {
		t.Errorf("%d lines for 20 refusals:\n%s", n, log.String())
	}
}

// TestStrangersDoNotWriteTheLog: names as long as a handshake may be, in every place that an error takes them from.
func TestStrangersDoNotWriteTheLog(t *testing.T) {
	ca, stranger := newCA(t), newCA(t)
	long := strings.Repeat("A\n", 25<<10)
	named := func(a *authority, usage ...x509.ExtKeyUsage) *tls.Certificate {
		return a.node("b", func(c *x509.Certificate) { c.Subject.CommonName, c.ExtKeyUsage = long, usage })
	}
	issuer := &authority{tb: t}
	issuer.cert, issuer.key = issuer.sign(&x509.Certificate{
		Subject: pkix.Name{CommonName: long}, IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageDigitalSignature,
	})
	for name, cfg := range map[string]*tls.Config{
		"another CA":     {Certificates: []tls.Certificate{*named(stranger, both()...)}},
		"no node":        {Certificates: []tls.Certificate{*named(ca, both()...)}},
		"one end only":   {Certificates: []tls.Certificate{*named(ca, both()[:1]...)}},
		"the CA's name":  {Certificates: []tls.Certificate{*issuer.node("b")}},
		"many protocols": {NextProtos: slices.Repeat([]string{strings.Repeat("\n", 255)}, 100)},
	} {
		t.Run(name, func(t *testing.T) {
			var log bytes.Buffer
			b := wireOf(t, identify(ca.node("b"), ca.pool()), func(c *Config) {
				c.Log = slog.New(slog.NewTextHandler(&log, &slog.HandlerOptions{Level: slog.LevelDebug}))
			})
			b.Handle(proto, echo)
			if cfg.NextProtos == nil {
				cfg.NextProtos = []string{proto}
			}
			if knock(t, b.Addr().String(), cfg) == nil {
				t.Fatal("a stranger was let in")
			}
			if err := b.Close(); err != nil {
				t.Fatal(err)
			}
			if n := log.Len(); n == 0 || n > 2<<10 {
				t.Errorf("logged %d bytes", n)
			}
		})
	}
}
