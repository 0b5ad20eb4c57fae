package wire

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"syscall"
	"time"
)

const (
	dialTimeout = 5 * time.Second
	dialTries   = 8
	dialBackoff = 25 * time.Millisecond // doubles with every try
)

func newDialer() net.Dialer {
	d := net.Dialer{KeepAliveConfig: keepAlive()}
	d.SetMultipathTCP(false)
	return d
}

// Dial opens a connection to the node of this cluster at addr. It fails with ErrRefused when that node does not
// speak the protocol. It takes at most five seconds, after waiting for its turn: eight dials to one address are
// under way at a time.
func (w *Wire) Dial(ctx context.Context, addr, proto string) (*Conn, error) {
	return w.dial(ctx, "", addr, proto)
}

// DialNode is Dial to a certain node: another one that answers at addr is an error, and learns nothing.
func (w *Wire) DialNode(ctx context.Context, name, addr, proto string) (*Conn, error) {
	if name == "" {
		return nil, fmt.Errorf("dial %s for %s: no node was named", addr, proto)
	}
	return w.dial(ctx, name, addr, proto)
}

func (w *Wire) dial(ctx context.Context, name, addr, proto string) (*Conn, error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	defer context.AfterFunc(w.ctx, cancel)()
	c := &Conn{w: w, addr: addr}
	cfg := clientConfig(proto, func(s tls.ConnectionState) (err error) {
		if c.Peer, err = w.check(s.PeerCertificates, x509.ExtKeyUsageServerAuth); err != nil {
			return err
		}
		if name != "" && c.Peer != name {
			return fmt.Errorf("node %s answers there, not %s", c.Peer, name)
		}
		c.chain = s.PeerCertificates
		return nil
	})
	cfg.GetClientCertificate = func(*tls.CertificateRequestInfo) (_ *tls.Certificate, err error) {
		c.shown, err = w.certificate()
		return c.shown, err
	}
	t, err := w.connect(ctx, addr, cfg)
	if w.ctx.Err() != nil {
		if err == nil {
			_ = t.Close()
		}
		err = net.ErrClosed
	}
	if err != nil {
		return nil, fmt.Errorf("dial %s for %s: %w", addr, proto, err)
	}
	raw, ok := t.NetConn().(*net.TCPConn)
	if !ok {
		_ = t.Close()
		return nil, fmt.Errorf("dial %s for %s: not a TCP connection", addr, proto)
	}
	c.Conn, c.raw = t, raw
	if err := w.enroll(c); err != nil {
		_ = t.Close()
		return nil, fmt.Errorf("dial %s for %s: %w", addr, proto, err)
	}
	return c, nil
}

func (w *Wire) connect(ctx context.Context, addr string, cfg *tls.Config) (*tls.Conn, error) {
	leave, err := w.lanes.enter(ctx, addr)
	if err != nil {
		return nil, err
	}
	defer leave()
	return connect(ctx, w.dialer, addr, cfg)
}

// DialGuest opens a connection for one who has no certificate, to a protocol that takes Guests. The server's
// chain is a node's certificate first and its CA last, and holds together by itself at some time; verify says
// whether that time is now, and whether that CA is the one to be believed, before anything is sent.
func DialGuest(ctx context.Context, addr, proto string, verify func(chain []*x509.Certificate) error) (net.Conn, error) {
	t, err := connect(ctx, newDialer(), addr, clientConfig(proto, func(s tls.ConnectionState) error {
		chain := s.PeerCertificates
		if len(chain) < 2 {
			return errors.New("the node does not show its CA")
		}
		ca := x509.NewCertPool()
		ca.AddCert(chain[len(chain)-1])
		if _, err := checkChain(chain, ca, x509.ExtKeyUsageServerAuth, within(time.Now(), chain)); err != nil {
			return err
		}
		return verify(chain)
	}))
	if err != nil {
		return nil, fmt.Errorf("dial %s for %s: %w", addr, proto, err)
	}
	return t, nil
}

// within is the moment closest to now at which a chain's certificates are valid, if there is one: when now is not,
// the clock may be wrong, of which verify can say more than that a certificate is bad.
func within(now time.Time, chain []*x509.Certificate) time.Time {
	for _, c := range chain {
		if now.Before(c.NotBefore) {
			now = c.NotBefore
		}
	}
	for _, c := range chain {
		if now.After(c.NotAfter) {
			now = c.NotAfter
		}
	}
	return now
}

// connect opens a connection and waits to be welcome. A node under pressure drops connections before it has
// heard anything of them; these are tried again.
func connect(ctx context.Context, d net.Dialer, addr string, cfg *tls.Config) (*tls.Conn, error) {
	ctx, cancel := context.WithTimeout(ctx, dialTimeout)
	defer cancel()
	for try, wait := 1, dialBackoff; ; try, wait = try+1, 2*wait {
		c, err := connectOnce(ctx, d, addr, cfg)
		if err == nil || try == dialTries || !dropped(err) {
			return c, err
		}
		if !pause(ctx, wait/2+rand.N(wait)) { // #nosec G404 -- spreads tries, keeps no secret
			return nil, err
		}
	}
}

func connectOnce(ctx context.Context, d net.Dialer, addr string, cfg *tls.Config) (*tls.Conn, error) {
	raw, err := d.DialContext(ctx, "tcp", addr)
	if err != nil {
		return nil, err
	}
	expire := context.AfterFunc(ctx, func() { _ = raw.SetDeadline(time.Unix(1, 0)) })
	t := tls.Client(raw, cfg)
	var word [1]byte
	if err = t.HandshakeContext(ctx); err == nil {
		_, err = io.ReadFull(t, word[:])
	}
	switch ended := !expire(); {
	case err == nil && !ended && word[0] == welcome:
		return t, nil
	case ended:
		err = ctx.Err()
	case err == nil && word[0] == unwanted:
		err = ErrTurnedAway
	case err == nil:
		err = errors.New("the peer does not say welcome: it runs another version")
	case alerted(err, noApplicationProtocol):
		err = ErrRefused
	case alerted(err, badCertificate):
		err = fmt.Errorf("the peer does not accept this node's certificate: %w", err)
	}
	raw.Close()
	return nil, err
}

// Alerts of TLS (RFC 8446, 6.2).
const (
	badCertificate        = 42
	noApplicationProtocol = 120
)

// alerted tells whether the peer ended the connection with that alert. The tls package hands alerts of peers out
// as text only.
func alerted(err error, alert tls.AlertError) bool {
	var op *net.OpError
	return errors.As(err, &op) && op.Op == "remote error" && op.Err.Error() == alert.Error()
}

// dropped tells whether the peer closed the connection without giving a reason.
func dropped(err error) bool {
	return errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) ||
		errors.Is(err, syscall.ECONNRESET) || errors.Is(err, syscall.EPIPE)
}

// pause waits; false when ctx ended first.
func pause(ctx context.Context, d time.Duration) bool {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return true
	case <-ctx.Done():
		return false
	}
}
