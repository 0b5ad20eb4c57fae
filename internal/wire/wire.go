package wire

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"sync"
	"time"
)

// ErrRefused is within the error of a dial to a node that does not speak the protocol: it has not begun to, or
// the protocol's name carries something (a lineage) that is not the other's.
var ErrRefused = errors.New("the peer does not speak this protocol")

// ErrTurnedAway is within the error of a dial when the peer's Config.Refuse refuses this node.
var ErrTurnedAway = errors.New("the peer refuses this node")

// errUnwanted is within the error when Refuse has refused the peer.
var errUnwanted = errors.New("is refused")

// backlog is how many connections of a protocol may wait for Accept.
const backlog = 64

// patience is how long a Wire waits for its peers; tests have less.
type patience struct {
	handshake time.Duration // for a handshake at the accepting end, from the first byte to the word of welcome
	silence   time.Duration // for what was sent to be acknowledged
	check     time.Duration // between two looks for silent peers
}

// Trust is a node's identity and whom it believes. Both may change at any time; they are asked for at every
// handshake.
type Trust interface {
	// Certificate is this node's, followed by its CA's: newcomers know the CA by its hash only.
	Certificate() *tls.Certificate
	// Roots are the CAs that vouch for peers.
	Roots() *x509.CertPool
}

// Config is what a Wire needs.
type Config struct {
	// Addr is the TCP address to listen on.
	Addr string
	// Trust is this node's identity.
	Trust Trust
	// Refuse turns away a peer that has a good certificate, for example a removed node's; nil refuses nobody.
	Refuse func(*x509.Certificate) error
	// Log hears of peers that were refused; nil discards.
	Log *slog.Logger

	now func() time.Time // for certificates; tests have their own
}

// Wire is a node's end of the connections between peers.
type Wire struct {
	cfg    Config
	wait   patience
	ln     net.Listener
	dialer net.Dialer
	gate   gate
	lanes  lanes
	quiet  quiet
	ctx    context.Context // ends with Close
	cancel context.CancelFunc
	tasks  sync.WaitGroup

	mu     sync.Mutex // guards what follows; never held during I/O
	closed bool
	routes map[string]*route
	conns  map[*Conn]struct{} // every open one, accepted or dialed
	links  map[target]*link
}

// Listen binds the port and accepts at once; a protocol is refused until somebody registers it. ctx bounds the
// binding only: the Wire lives until Close, because a node that is told to stop still has things to say.
func Listen(ctx context.Context, cfg Config) (*Wire, error) {
	return listen(ctx, cfg, patience{handshake: 5 * time.Second, silence: 5 * time.Second, check: time.Second})
}

func listen(ctx context.Context, cfg Config, wait patience) (*Wire, error) {
	if cfg.Trust == nil {
		return nil, errors.New("listen for peers: no certificate to show (Config.Trust is nil)")
	}
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.DiscardHandler)
	}
	if cfg.now == nil {
		cfg.now = time.Now
	}
	lc := net.ListenConfig{KeepAliveConfig: keepAlive()}
	lc.SetMultipathTCP(false) // silence is judged by TCP_INFO of the one path
	ln, err := lc.Listen(ctx, "tcp", cfg.Addr)
	if err != nil {
		return nil, fmt.Errorf("listen for peers: %w", err)
	}
	w := &Wire{
		cfg: cfg, wait: wait, ln: ln, dialer: newDialer(),
		routes: map[string]*route{}, conns: map[*Conn]struct{}{}, links: map[target]*link{},
	}
	w.ctx, w.cancel = context.WithCancel(context.WithoutCancel(ctx))
	w.Handle(greetProto, func(context.Context, *Conn) {}) // the handshake is all there is to it
	w.tasks.Go(w.accept)
	w.tasks.Go(w.listenForSilence)
	return w, nil
}

// Addr is the address it listens on.
func (w *Wire) Addr() net.Addr { return w.ln.Addr() }

// Close closes the port and every connection, and waits until all handlers and answers have returned: it must
// not be called from one of them.
func (w *Wire) Close() error {
	w.mu.Lock()
	first := !w.closed
	w.closed = true
	routes := w.routes
	w.routes = map[string]*route{}
	w.mu.Unlock()
	var err error
	if first {
		w.cancel()
		err = w.ln.Close()
		for _, r := range routes {
			if r.listener != nil {
				close(r.listener.done)
			}
		}
		w.cut(func(*Conn) bool { return true })
	}
	w.tasks.Wait()
	if err != nil {
		return fmt.Errorf("close the port for peers: %w", err)
	}
	return nil
}

// cut closes the open connections that match, all at the same time: closing one politely may take seconds when
// its peer does not read.
func (w *Wire) cut(match func(*Conn) bool) {
	w.mu.Lock()
	conns := make([]*Conn, 0, len(w.conns))
	for c := range w.conns {
		conns = append(conns, c)
	}
	w.mu.Unlock()
	var closing sync.WaitGroup
	for _, c := range conns {
		if match(c) {
			closing.Go(func() { _ = c.Close() })
		}
	}
	closing.Wait()
}

// start runs f in a goroutine that Close waits for; false when the Wire is closed.
func (w *Wire) start(f func()) bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.closed {
		return false
	}
	w.tasks.Go(f)
	return true
}

// quiet thins out log lines that strangers can cause.
type quiet struct {
	mu      sync.Mutex
	last    time.Time
	skipped int
}

const quietFor = time.Second

// ask returns whether to log now, and how many lines were skipped since the last one.
func (q *quiet) ask(now time.Time) (bool, int) {
	q.mu.Lock()
	defer q.mu.Unlock()
	if now.Sub(q.last) < quietFor {
		q.skipped++
		return false, 0
	}
	skipped := q.skipped
	q.last, q.skipped = now, 0
	return true, skipped
}
