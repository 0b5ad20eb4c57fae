package wire

import (
	"bytes"
	"context"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

// victim is a node that counts who got in, and a peer of it.
type victim struct {
	*Wire
	ca   *authority
	peer *Wire
	met  atomic.Int32
}

func newVictim(t *testing.T) *victim {
	t.Helper()
	ca, a, b := two(t)
	v := &victim{Wire: b, ca: ca, peer: a}
	b.Handle(proto, func(ctx context.Context, c *Conn) { v.met.Add(1); echo(ctx, c) })
	b.Guests("psw-join/1", echo)
	return v
}

// untouched fails the test if somebody got in, or if the real peer does not.
func (v *victim) untouched(t *testing.T) {
	t.Helper()
	if n := v.met.Load(); n != 0 {
		t.Errorf("%d strangers got in", n)
	}
	works(t, mustDial(t, v.peer, v.Wire, proto))
}

// knock is a client of any kind; nil when it was welcome.
func knock(t *testing.T, addr string, cfg *tls.Config) error {
	t.Helper()
	cfg.InsecureSkipVerify = true
	c, err := (&tls.Dialer{Config: cfg}).DialContext(t.Context(), "tcp", addr)
	if err != nil {
		return err
	}
	defer c.Close()
	if err := c.SetReadDeadline(time.Now().Add(10 * time.Second)); err != nil {
		return err
	}
	var word [1]byte
	_, err = io.ReadFull(c, word[:])
	return err
}

func TestStrangersAreNoPeers(t *testing.T) {
	v := newVictim(t)
	for name, cert := range spoiled(v.ca, newCA(t)) {
		t.Run(name, func(t *testing.T) {
			err := knock(t, v.Addr().String(), &tls.Config{NextProtos: []string{proto}, Certificates: []tls.Certificate{*cert}})
			wantError(t, err, "bad certificate")
			stranger := wireOf(t, identify(cert, v.ca.pool()))
			_, err = stranger.Dial(t.Context(), v.Addr().String(), proto)
			wantError(t, err, "does not accept this node's certificate")
		})
	}
	good := *v.ca.node("c")
	for name, c := range map[string]struct {
		cfg  *tls.Config
		want string
	}{
		"no certificate":     {&tls.Config{NextProtos: []string{proto}}, "certificate required"},
		"no protocol":        {&tls.Config{Certificates: []tls.Certificate{good}}, "internal error"},
		"unknown protocol":   {&tls.Config{Certificates: []tls.Certificate{good}, NextProtos: []string{"h2", "http/1.1"}}, "no application protocol"},
		"TLS 1.2":            {&tls.Config{Certificates: []tls.Certificate{good}, NextProtos: []string{proto}, MaxVersion: tls.VersionTLS12}, "protocol version"},
		"a peer, then guest": {&tls.Config{NextProtos: []string{proto, "psw-join/1"}}, "certificate required"},
	} {
		t.Run(name, func(t *testing.T) { wantError(t, knock(t, v.Addr().String(), c.cfg), c.want) })
	}
	t.Run("a guest who would be a peer", func(t *testing.T) {
		c, err := (&tls.Dialer{Config: &tls.Config{NextProtos: []string{"psw-join/1", proto}, InsecureSkipVerify: true}}).
			DialContext(t.Context(), "tcp", v.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		if got := c.(*tls.Conn).ConnectionState().NegotiatedProtocol; got != "psw-join/1" {
			t.Errorf("speaks %q as a guest", got)
		}
	})
	v.untouched(t)
}

// TestStrangersAreNotDialed: what answers at an address gets nothing, not even this node's certificate.
func TestStrangersAreNotDialed(t *testing.T) {
	ca := newCA(t)
	a := wireOf(t, identify(ca.node("a"), ca.pool()))
	certs := spoiled(ca, newCA(t))
	certs["no protocol"] = ca.node("b")
	for name, cert := range certs {
		t.Run(name, func(t *testing.T) {
			cfg := &tls.Config{Certificates: []tls.Certificate{*cert}, ClientAuth: tls.RequireAnyClientCert, NextProtos: []string{proto}}
			if name == "no protocol" {
				cfg.NextProtos = nil
			}
			l, err := tls.Listen("tcp", "127.0.0.1:0", cfg)
			if err != nil {
				t.Fatal(err)
			}
			defer l.Close()
			shaken := make(chan error, 1)
			go func() {
				c, err := l.Accept()
				if err == nil {
					err = c.(*tls.Conn).HandshakeContext(t.Context())
					c.Close()
				}
				shaken <- err
			}()
			if _, err := a.Dial(t.Context(), l.Addr().String(), proto); err == nil {
				t.Error("dialed a stranger")
			}
			if err := <-shaken; err == nil {
				t.Error("the stranger has learned who dialed")
			}
		})
	}
}

func TestNobodyIsBelievedWithoutRoots(t *testing.T) {
	ca := newCA(t)
	a, b := wireOf(t, identify(ca.node("a"), nil)), wireOf(t, identify(ca.node("b"), ca.pool()))
	a.Handle(proto, echo)
	b.Handle(proto, echo)
	_, err := a.Dial(t.Context(), b.Addr().String(), proto)
	wantError(t, err, "no CA is believed")
	if _, err := b.Dial(t.Context(), a.Addr().String(), proto); err == nil {
		t.Error("a node without roots accepted a peer")
	}
	c := wireOf(t, identify(nil, ca.pool()))
	c.Handle(proto, echo)
	_, err = c.Dial(t.Context(), b.Addr().String(), proto)
	wantError(t, err, "no certificate")
	if _, err := b.Dial(t.Context(), c.Addr().String(), proto); err == nil {
		t.Error("a node without certificate accepted a peer")
	}
}

func TestGarbage(t *testing.T) {
	v := newVictim(t)
	noise := make([]byte, 1<<20)
	_, _ = rand.Read(noise)
	for name, b := range map[string][]byte{
		"nothing":         {},
		"noise":           noise,
		"zeros":           make([]byte, 1<<20),
		"HTTP":            []byte("GET / HTTP/1.1\r\nHost: x\r\n\r\n"),
		"SSH":             []byte("SSH-2.0-OpenSSH_9.9\r\n"),
		"huge record":     append([]byte{22, 3, 1, 255, 255}, noise...),
		"huge message":    append([]byte{22, 3, 1, 64, 0, 1, 255, 255, 255}, noise...),
		"empty records":   bytes.Repeat([]byte{22, 3, 3, 0, 0}, 1000),
		"alerts":          bytes.Repeat([]byte{21, 3, 3, 0, 2, 1, 0}, 1000),
		"change ciphers":  bytes.Repeat([]byte{20, 3, 3, 0, 1, 1}, 1000),
		"half a greeting": {22, 3, 1, 2, 0, 1, 0, 1, 252, 3, 3},
	} {
		t.Run(name, func(t *testing.T) {
			c, err := net.Dial("tcp", v.Addr().String())
			if err != nil {
				t.Fatal(err)
			}
			defer c.Close()
			_, _ = c.Write(b)
			_ = c.(*net.TCPConn).CloseWrite()
			_ = c.SetReadDeadline(time.Now().Add(10 * time.Second))
			if _, err := io.Copy(io.Discard, c); errors.Is(err, context.DeadlineExceeded) {
				t.Error("the connection was kept")
			}
		})
	}
	v.untouched(t)
}

// recorder passes one connection on. said waits for its end and returns what the client said.
func recorder(t *testing.T, to string) (addr string, said func() []byte) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	var kept bytes.Buffer
	var passing sync.WaitGroup
	t.Cleanup(func() { l.Close(); passing.Wait() })
	passing.Go(func() {
		in, err := l.Accept()
		if err != nil {
			return
		}
		defer in.Close()
		out, err := net.Dial("tcp", to)
		if err != nil {
			return
		}
		passing.Go(func() { _, _ = io.Copy(in, out); in.Close() })
		_, _ = io.Copy(io.MultiWriter(out, &kept), in)
		out.Close()
	})
	return l.Addr().String(), func() []byte { passing.Wait(); return kept.Bytes() }
}

func TestReplayedHandshake(t *testing.T) {
	v := newVictim(t)
	through, said := recorder(t, v.Addr().String())
	c, err := v.peer.Dial(t.Context(), through, proto)
	if err != nil {
		t.Fatal(err)
	}
	works(t, c)
	c.Close()
	recording := said()
	if n := v.met.Swap(0); n != 1 || len(recording) < 1000 {
		t.Fatalf("recorded %d bytes of %d connections", len(recording), n)
	}
	replay, err := net.Dial("tcp", v.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer replay.Close()
	if _, err := replay.Write(recording); err != nil {
		t.Fatal(err)
	}
	_ = replay.SetReadDeadline(time.Now().Add(10 * time.Second))
	if _, err := io.Copy(io.Discard, replay); errors.Is(err, context.DeadlineExceeded) {
		t.Error("the replaying connection was kept")
	}
	v.untouched(t)
}

// TestSlowStrangers: 500 connections that say a little and then nothing, of few addresses or of one, which may
// even be the peer's own, keep no peer out.
func TestSlowStrangers(t *testing.T) {
	for name, from := range map[string]func(i int) string{
		"of the peer's address": func(int) string { return "127.0.0.1" },
		"of one address":        func(int) string { return "127.0.0.2" },
		"of 20 addresses":       func(i int) string { return fmt.Sprintf("127.0.1.%d", 1+i%20) },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			v := newVictim(t)
			for i := range 500 {
				d := net.Dialer{LocalAddr: &net.TCPAddr{IP: net.ParseIP(from(i))}}
				c, err := d.DialContext(t.Context(), "tcp", v.Addr().String())
				if err != nil {
					t.Fatal(err)
				}
				t.Cleanup(func() { c.Close() })
				_, _ = c.Write([]byte{22, 3, 1, 2, 0, 1, 0, 1})
			}
			begun := time.Now()
			for range 20 {
				c, err := v.peer.Dial(t.Context(), v.Addr().String(), proto)
				if err != nil {
					t.Fatal(err)
				}
				works(t, c)
				c.Close()
			}
			t.Logf("20 peers got in within %v", time.Since(begun))
			v.gate.mu.Lock()
			defer v.gate.mu.Unlock()
			if n := len(v.gate.inside); n > maxHandshakes {
				t.Errorf("%d handshakes in flight", n)
			}
		})
	}
}

func TestHandshakeHasADeadline(t *testing.T) {
	const wait = 300 * time.Millisecond
	_, b := hasty(t, patience{handshake: wait, silence: time.Minute, check: time.Minute})
	c, err := net.Dial("tcp", b.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	done := make(chan struct{})
	var drip sync.WaitGroup
	drip.Go(func() { // one byte of a greeting now and then
		tick := time.NewTicker(wait / 20)
		defer tick.Stop()
		for _, b := range append([]byte{22, 3, 1, 2, 0, 1, 0, 1, 252, 3, 3}, make([]byte, 500)...) {
			if _, err := c.Write([]byte{b}); err != nil {
				return
			}
			select {
			case <-tick.C:
			case <-done:
				return
			}
		}
	})
	begun := time.Now()
	over(t, c)
	close(done)
	drip.Wait()
	if d := time.Since(begun); d < wait/2 || d > wait+3*time.Second {
		t.Errorf("ended after %v", d)
	}
}

func TestGuests(t *testing.T) {
	ca, a, b := two(t)
	b.Guests("psw-join/1", func(ctx context.Context, c *Conn) {
		if c.Peer != "" {
			t.Errorf("a guest is named %q", c.Peer)
		}
		echo(ctx, c)
	})
	b.Handle(proto, echo)
	pinned := func(chain []*x509.Certificate) error {
		if !chain[len(chain)-1].Equal(ca.cert) {
			return errors.New("another CA")
		}
		return nil
	}
	join := func() (net.Conn, error) {
		ctx, cancel := context.WithTimeout(t.Context(), time.Second) // do not try for long
		defer cancel()
		return DialGuest(ctx, b.Addr().String(), "psw-join/1", pinned)
	}
	t.Run("is welcome", func(t *testing.T) {
		c, err := join()
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		works(t, c)
	})
	t.Run("only there", func(t *testing.T) {
		_, err := DialGuest(t.Context(), b.Addr().String(), proto, pinned)
		wantError(t, err, "certificate required")
		_, err = DialGuest(t.Context(), a.Addr().String(), "psw-join/1", pinned)
		if !errors.Is(err, ErrRefused) {
			t.Errorf("join by a node that does not take guests: %v, want ErrRefused", err)
		}
	})
	t.Run("a node as guest", func(t *testing.T) { works(t, mustDial(t, a, b, "psw-join/1")) })
	t.Run("brings little", func(t *testing.T) {
		c, err := join()
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		var reading sync.WaitGroup
		back := 0
		reading.Go(func() { n, _ := io.Copy(io.Discard, c); back = int(n) })
		_, _ = c.Write(make([]byte, 4*guestBytes))
		reading.Wait()
		if back > guestBytes {
			t.Errorf("brought %d bytes", back)
		}
	})
	t.Run("are few", func(t *testing.T) {
		var in []net.Conn
		for range 2 * maxGuestsFrom {
			if c, err := join(); err == nil {
				defer c.Close()
				in = append(in, c)
			} else {
				break
			}
		}
		if len(in) < maxGuestsFrom/2 || len(in) > maxGuestsFrom {
			t.Errorf("%d guests of one address at once", len(in))
		}
		works(t, mustDial(t, a, b, proto))
		in[0].Close()
		eventually(t, "another guest may come", func() bool {
			c, err := join()
			if err == nil {
				c.Close()
			}
			return err == nil
		})
	})
}

// TestGuestsAreNotDeceived: verify is asked about the CA and the time only when the rest is beyond doubt, and
// nothing is sent to who fails.
func TestGuestsAreNotDeceived(t *testing.T) {
	ca := newCA(t)
	certs := spoiled(ca, newCA(t))
	delete(certs, "another CA") // verify's to find out, as below
	alone := ca.node("b")
	alone.Certificate = alone.Certificate[:1]
	certs["no CA shown"], certs["not the CA"] = alone, ca.node("b")
	certs["not yet valid"] = ca.node("a", func(c *x509.Certificate) {
		c.NotBefore, c.NotAfter = time.Now().Add(30*time.Minute), time.Now().Add(time.Hour/2+time.Minute)
	})
	verifys := map[string]bool{"not the CA": true, "expired": true, "not yet valid": true}
	for name, cert := range certs {
		t.Run(name, func(t *testing.T) {
			w := wireOf(t, identify(cert, ca.pool()))
			var met atomic.Bool
			w.Guests("psw-join/1", func(context.Context, *Conn) { met.Store(true) })
			asked := false
			_, err := DialGuest(t.Context(), w.Addr().String(), "psw-join/1", func([]*x509.Certificate) error {
				asked = true
				return errors.New("not the CA of the token")
			})
			if err == nil || met.Load() {
				t.Errorf("err = %v, met a guest: %v", err, met.Load())
			}
			if want := verifys[name]; asked != want {
				t.Errorf("verify asked: %v, want %v (%v)", asked, want, err)
			}
		})
	}
}
