package wire

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net"
	"time"
)

const (
	// welcome is what the accepting end says when it has accepted the peer, unwanted when Refuse has turned it away.
	welcome  = 1
	unwanted = 2
	// lastWords is how long a refused peer's bytes are still taken, that it may read why: closing a socket with
	// unread bytes destroys what is under way to the other end.
	lastWords      = 250 * time.Millisecond
	lastWordsBytes = 64 << 10
)

func (w *Wire) accept() {
	var wait time.Duration
	for {
		c, err := w.ln.Accept()
		switch {
		case err == nil:
			wait = 0
			w.admit(c)
			continue
		case w.ctx.Err() != nil:
			return
		}
		// Out of descriptors, most likely: try again when some may be free.
		wait = min(max(2*wait, 5*time.Millisecond), time.Second)
		w.cfg.Log.WarnContext(w.ctx, "accept a connection of a peer", "err", err)
		if !pause(w.ctx, wait) {
			return
		}
	}
}

func (w *Wire) admit(c net.Conn) {
	raw, ok := c.(*net.TCPConn)
	if !ok {
		_ = c.Close()
		return
	}
	now := time.Now()
	a := &arrival{TCPConn: raw, born: now}
	if !w.gate.enter(a, now) {
		_ = c.Close()
		return
	}
	if !w.start(func() { w.greet(a) }) {
		w.gate.leave(a)
		_ = c.Close()
	}
}

// greet leads an accepted connection to its route, or closes it.
func (w *Wire) greet(a *arrival) {
	defer w.gate.leave(a)
	ctx, cancel := context.WithTimeout(w.ctx, w.wait.handshake)
	defer cancel()
	_ = a.SetDeadline(time.Now().Add(w.wait.handshake))
	g := greeting{w: w, c: &Conn{w: w, raw: a.TCPConn}}
	t := tls.Server(a, &tls.Config{MinVersion: tls.VersionTLS13, GetConfigForClient: g.hello})
	if err := t.HandshakeContext(ctx); err != nil {
		w.turnedAway(a, g.refusal, err)
		return
	}
	c := g.c
	if c.Conn = net.Conn(t); c.route.guest {
		c.Conn = &guest{Conn: t, left: guestBytes}
	}
	if err := w.enroll(c); err != nil {
		if errors.Is(err, errUnwanted) {
			_, _ = t.Write([]byte{unwanted})
		}
		w.turnedAway(a, err, nil)
		return
	}
	// Who is welcome can no longer be asked to make room; who just was is not.
	if !w.gate.leave(a) {
		_ = c.Close()
		return
	}
	a.settled.Store(true)
	if _, err := t.Write([]byte{welcome}); err != nil {
		_ = c.Close()
		return
	}
	_ = a.SetDeadline(time.Time{})
	c.route.take(c)
}

// greeting is what a handshake finds out about a peer.
type greeting struct {
	w       *Wire
	c       *Conn
	refusal error // why the peer may not speak to us
}

// hello chooses the protocol before anything is answered: it decides whether the peer has to name itself.
func (g *greeting) hello(h *tls.ClientHelloInfo) (*tls.Config, error) {
	if len(h.SupportedProtos) == 0 {
		return nil, errors.New("no protocol was named")
	}
	g.w.mu.Lock()
	for _, proto := range h.SupportedProtos {
		if g.c.route = g.w.routes[proto]; g.c.route != nil {
			break
		}
	}
	g.w.mu.Unlock()
	if g.c.route == nil {
		// No client can offer the empty protocol: the alert no_application_protocol follows.
		return g.w.serverConfig("", true, nil), nil
	}
	return g.w.serverConfig(g.c.route.proto, g.c.route.guest, g.verify), nil
}

func (g *greeting) verify(s tls.ConnectionState) error {
	// Refuse is asked later, when the peer has shown that the certificate is its own and may be told.
	g.c.Peer, g.refusal = g.w.checkChain(s.PeerCertificates, x509.ExtKeyUsageClientAuth)
	if g.refusal == nil {
		g.c.chain = s.PeerCertificates
	}
	return g.refusal
}

// enroll makes the connection one of the open ones.
func (w *Wire) enroll(c *Conn) error {
	if err := w.seat(c); err != nil {
		return err
	}
	// Now that Recheck and FollowTrust see the connection: a peer must not slip in while it is being removed, or its
	// CA dropped.
	if err := w.judge(c); err != nil {
		w.forget(c)
		return err
	}
	w.vouch(c)
	return nil
}

// seat is enroll's bookkeeping: the route must still be there and have room.
func (w *Wire) seat(c *Conn) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	if c.route != nil {
		if w.routes[c.route.proto] != c.route {
			return fmt.Errorf("protocol %s has ended", c.route.proto)
		}
		if l := c.route.listener; l != nil && len(l.queue) >= backlog {
			return fmt.Errorf("protocol %s does not accept fast enough", c.route.proto)
		}
		if c.route.guest && !w.guestRoom(c) {
			return errors.New("too many guests")
		}
	}
	if w.closed {
		return net.ErrClosed
	}
	w.conns[c] = struct{}{}
	return nil
}

// turnedAway ends a connection that was not accepted. A refused peer is worth a line, garbage is not.
func (w *Wire) turnedAway(a *arrival, refusal, err error) {
	defer func() { _ = a.Close() }()
	if refusal == nil {
		w.cfg.Log.DebugContext(w.ctx, "no handshake with a peer", "remote", a.RemoteAddr(), "err", brief{err})
	} else if now, skipped := w.quiet.ask(time.Now()); now {
		w.cfg.Log.WarnContext(w.ctx, "refuse a peer", "remote", a.RemoteAddr(), "err", brief{refusal}, "skipped", skipped)
	}
	if w.ctx.Err() != nil || a.CloseWrite() != nil || a.SetDeadline(time.Now().Add(lastWords)) != nil {
		return
	}
	_, _ = io.CopyN(io.Discard, a, lastWordsBytes)
}
