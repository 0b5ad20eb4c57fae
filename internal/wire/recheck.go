package wire

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"sync"
	"time"
)

const (
	// greetProto is spoken for its handshake only: the two ends show each other what certificates they have now.
	greetProto = "psw-greet/1"
	// recheckEvery is how long a connection may outlive the certificate of its peer.
	recheckEvery = time.Hour
	// greetEvery is much shorter than a CA that is being replaced is still believed.
	greetEvery = 5 * time.Second
)

// Recheck closes the open connections of peers that Refuse refuses: a node that has just been removed leaves at once,
// not when it dials next. Callers may ask as often as the members change; no certificate is verified, see FollowTrust.
func (w *Wire) Recheck() { w.end(w.refused) }

// reverify closes the open connections whose peers would not be let in today: besides what Recheck looks for, their
// certificate has expired, or its CA is believed no more, which is how whoever holds a certificate of a CA that was
// replaced because its key is known to others is got rid of.
//
// A peer that has meanwhile shown a newer certificate for the same key keeps its connections: see FollowTrust.
//
// It verifies a chain of certificates for every connection.
func (w *Wire) reverify() { w.end(w.judge) }

// end closes the connections whose peers are not to be let in.
func (w *Wire) end(unwanted func(*Conn) error) {
	w.cut(func(c *Conn) bool {
		err := unwanted(c)
		if err == nil {
			return false
		}
		if now, skipped := w.quiet.ask(time.Now()); now {
			w.cfg.Log.WarnContext(w.ctx, "close a connection: its peer would not be let in any more", "peer", c.Peer, "err", err, "skipped", skipped)
		}
		return true
	})
}

// FollowTrust verifies the peers of all connections again when the trust has changed, and every hour, until ctx ends;
// changed returns a channel that is closed at the next change. Renewals and rotations cut no connection: before the
// certificates that its ends have shown are worth nothing any more, the dialing end greets the other, and both see
// the new ones.
func (w *Wire) FollowTrust(ctx context.Context, changed func() <-chan struct{}) error {
	follow(ctx, changed, w.greetAgain, w.reverify)
	return nil
}

// follow calls greet often, and recheck after it when something has changed or the last time is long ago.
func follow(ctx context.Context, changed func() <-chan struct{}, greet func(context.Context), recheck func()) {
	tick := time.NewTicker(greetEvery)
	defer tick.Stop()
	var last time.Time
	for {
		news := changed()
		for same := true; same; {
			greet(ctx)
			if ctx.Err() != nil {
				return
			}
			// By the clock on the wall: a machine that sleeps lets certificates expire.
			if now := time.Now().Round(0); now.Sub(last).Abs() >= recheckEvery {
				recheck()
				last = now
			}
			select {
			case <-tick.C:
			case <-news:
				same, last = false, time.Time{}
			case <-ctx.Done():
				return
			}
		}
	}
}

// judge tells why a connection's peer would not be let in today.
func (w *Wire) judge(c *Conn) error {
	chain := w.shownBy(c)
	if chain == nil {
		return nil // a guest
	}
	usage := x509.ExtKeyUsageServerAuth
	if c.route != nil {
		usage = x509.ExtKeyUsageClientAuth
	}
	_, err := w.check(chain, usage)
	return err
}

// refused tells why a connection's peer is refused, whatever its certificate is worth.
func (w *Wire) refused(c *Conn) error {
	chain := w.shownBy(c)
	if chain == nil {
		return nil
	}
	return w.refuse(c.Peer, chain[0])
}

func (w *Wire) shownBy(c *Conn) []*x509.Certificate {
	w.mu.Lock()
	defer w.mu.Unlock()
	return c.chain
}

// vouch lets a connection that was just made speak for the older ones to the same peer: who was known by a key then
// is known by it still, if the certificate of today is for the same name and the same key.
func (w *Wire) vouch(newest *Conn) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if newest.chain == nil {
		return
	}
	for c := range w.conns {
		if c == newest || c.chain == nil || c.Peer != newest.Peer ||
			!bytes.Equal(c.chain[0].RawSubjectPublicKeyInfo, newest.chain[0].RawSubjectPublicKeyInfo) {
			continue
		}
		c.chain = newest.chain
		if c.shown != nil && newest.shown != nil {
			c.shown = newest.shown
		}
	}
}

// greetAgain greets the peers of dialed connections that rest on certificates which are or soon will be replaced.
func (w *Wire) greetAgain(ctx context.Context) {
	own, err := w.certificate()
	if err != nil {
		return
	}
	type peer struct{ name, addr string }
	old := map[peer]struct{}{}
	now := w.cfg.now()
	w.mu.Lock()
	for c := range w.conns {
		if c.addr != "" && c.aged(own, now) {
			old[peer{c.Peer, c.addr}] = struct{}{}
		}
	}
	w.mu.Unlock()
	var greeting sync.WaitGroup
	for p := range old {
		greeting.Go(func() {
			c, err := w.DialNode(ctx, p.name, p.addr, greetProto)
			if err != nil {
				w.cfg.Log.DebugContext(ctx, "greet a peer", "peer", p.name, "err", err)
				return
			}
			_ = c.Close()
		})
	}
	greeting.Wait()
}

// aged tells whether either end of a dialed connection has, or should have by now, a newer certificate. Nodes renew
// theirs when a third of its life is left. The caller holds the Wire's mu.
func (c *Conn) aged(own *tls.Certificate, now time.Time) bool {
	if c.shown != nil && !bytes.Equal(c.shown.Certificate[0], own.Certificate[0]) {
		return true
	}
	leaf := c.chain[0]
	if own.Leaf != nil && !bytes.Equal(leaf.AuthorityKeyId, own.Leaf.AuthorityKeyId) {
		return true
	}
	return leaf.NotAfter.Sub(now)*4 < leaf.NotAfter.Sub(leaf.NotBefore)
}
