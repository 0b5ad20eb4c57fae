package gossip

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"sync"
	"time"

	"github.com/hashicorp/memberlist"
)

// Gossip is this node's membership. Its methods may be called from any goroutine.
type Gossip struct {
	name, label string
	addr        netip.AddrPort
	log         *slog.Logger
	book        *book
	list        *memberlist.Memberlist // set once; what it calls while it starts may not use it (see spawn)

	rotating sync.Mutex // serializes what is done to ring
	ring     *memberlist.Keyring

	news chan struct{} // holds one: this member's metadata is to be spread

	life   context.Context // ends with Close
	end    context.CancelFunc
	mu     sync.Mutex
	closed bool
	work   sync.WaitGroup // goroutines of this package, started while not closed
	ended  chan struct{}  // closed when Close has done its work
	err    error          // Close's, once ended

	// speaking is held, by having sent to it, while memberlist says something about this member, which may
	// take a second. Mutexes must not be held that long: virtual time stands still meanwhile.
	speaking chan struct{}
	left     bool // guarded by speaking
}

// Open starts to be a member, known to nobody until Join, or until another member joins this one.
// Listener and Packets belong to it from now on: they are closed by Close, and when Open fails.
func Open(ctx context.Context, cfg Config) (*Gossip, error) {
	cfg = cfg.withDefaults()
	if err := cfg.validate(); err != nil {
		cfg.close()
		return nil, err
	}
	addr, err := resolve(ctx, cfg.Addr)
	if err != nil {
		cfg.close()
		return nil, err
	}
	ring, err := newRing(cfg.Keys)
	if err != nil {
		cfg.close()
		return nil, err
	}
	g := &Gossip{
		name: cfg.Name, label: cfg.Label, addr: addr, log: cfg.Log, ring: ring,
		book: newBook(cfg.Name, cfg.Meta, cfg.Log), news: make(chan struct{}, 1),
		ended: make(chan struct{}), speaking: make(chan struct{}, 1),
	}
	t, err := openTransport(ctx, cfg, addr)
	if err != nil {
		cfg.close()
		return nil, fmt.Errorf("open gossip socket: %w", err)
	}
	g.life, g.end = context.WithCancel(context.WithoutCancel(ctx))
	list, err := memberlist.Create(g.settings(t, ring))
	if err != nil {
		g.end()
		return nil, errors.Join(fmt.Errorf("start gossip: %w", err), t.Shutdown())
	}
	g.mu.Lock()
	g.list = list
	g.mu.Unlock()
	g.work.Go(g.announce)
	return g, nil
}

func newRing(keys [][]byte) (*memberlist.Keyring, error) {
	want, err := ringOf(keys)
	if err != nil {
		return nil, err
	}
	return memberlist.NewKeyring(want, want[0])
}

// Members returns every member this node knows, itself included, sorted by name. Those that died
// or left are among them until Forget, or until they are alive again.
func (g *Gossip) Members() []Member { return g.book.list() }

// Changed returns a channel that is closed at the next change of Members: take it before looking.
func (g *Gossip) Changed() <-chan struct{} { return g.book.watch() }

// Forget removes a member that is dead or has left from what is remembered; Run stops looking for
// it. One that is alive stays.
func (g *Gossip) Forget(name string) { g.book.forget(name) }

const (
	// announceEvery is the shortest time between two announcements of this member's metadata. Each
	// costs every member a few packets.
	announceEvery = 200 * time.Millisecond
	// echoAfter is when metadata that has come to rest is announced once more, for members that the
	// first rumour missed.
	echoAfter = 400 * time.Millisecond
)

// SetMeta changes what the others are told about this member, at most MaxMeta bytes. It does not
// wait: the others know within about a second. Of several changes in quick succession only the last is
// sure to be seen.
func (g *Gossip) SetMeta(meta []byte) error {
	if err := checkMeta(meta); err != nil {
		return err
	}
	if g.life.Err() != nil {
		return fmt.Errorf("set gossip metadata: %w", net.ErrClosed)
	}
	if g.book.setMeta(meta) {
		g.speakSoon()
	}
	return nil
}

func (g *Gossip) speakSoon() {
	select {
	case g.news <- struct{}{}:
	default: // it is to be spread anyway, with what is true then
	}
}

// announce spreads this member's metadata when it has changed.
func (g *Gossip) announce() {
	var echo <-chan time.Time
	for {
		select {
		case <-g.life.Done():
			return
		case <-g.news:
			echo = time.After(echoAfter)
		case <-echo:
			echo = nil
		}
		g.speak(time.Nanosecond) // not waiting until it is spread
		select {
		case <-g.life.Done():
			return
		case <-time.After(announceEvery):
		}
	}
}

// speak makes a rumour of this member's metadata, and waits at most that long until it has been sent
// often enough. Being too late for that is no error: others spread it too.
func (g *Gossip) speak(wait time.Duration) {
	g.speaking <- struct{}{}
	defer func() { <-g.speaking }()
	if g.left {
		return
	}
	if err := g.list.UpdateNode(wait); err != nil {
		g.log.Debug("announced", "err", err)
	}
}

// leaveTimeout bounds each of the two steps of leaving.
const leaveTimeout = time.Second

// Leave says good-bye: the others see this member as Left, at once instead of after a silence. It
// returns when the news is on its way, or with ctx. Gossip goes on listening until Close.
func (g *Gossip) Leave(ctx context.Context) error {
	done := make(chan error, 1)
	if !g.spawn(func() { done <- g.leave() }) {
		return fmt.Errorf("leave gossip: %w", net.ErrClosed)
	}
	select {
	case err := <-done:
		return err
	case <-ctx.Done():
		return fmt.Errorf("leave gossip: %w", context.Cause(ctx))
	}
}

func (g *Gossip) leave() error {
	g.book.leave()
	// The others must know that this is a leave before memberlist tells them that it is an end.
	g.speak(leaveTimeout)
	g.speaking <- struct{}{}
	defer func() { <-g.speaking }()
	if g.left {
		return nil
	}
	// From now on UpdateNode must not be called: memberlist forgets members that left, itself too.
	g.left = true
	if g.life.Err() != nil {
		return fmt.Errorf("leave gossip: %w", net.ErrClosed)
	}
	if err := g.list.Leave(leaveTimeout); err != nil {
		return fmt.Errorf("leave gossip: %w", err)
	}
	return nil
}

// spawn runs f in a goroutine that Close waits for, unless it is too late or too early for that.
func (g *Gossip) spawn(f func()) bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.closed || g.list == nil {
		return false
	}
	g.work.Go(f)
	return true
}

// Close ends the membership without a word, and returns when everything it started has ended. That
// takes up to a second: memberlist cannot be told to give up a probe.
func (g *Gossip) Close() error {
	g.mu.Lock()
	first := !g.closed
	g.closed = true
	g.mu.Unlock()
	if first {
		g.err = g.close()
		close(g.ended)
	}
	<-g.ended
	return g.err
}

func (g *Gossip) close() error {
	g.end()
	// A probe in flight waits for an answer for its whole interval, which an unhealthy member
	// stretches. Whatever else memberlist leaves behind is over sooner, and timers find the book
	// closed. Who knows nobody probes nobody.
	alone := len(g.book.list()) == 1
	probing := probeInterval * time.Duration(g.list.GetHealthScore()+1)
	g.book.close()
	g.speaking <- struct{}{} // memberlist panics when it is told to leave after its end
	err := g.list.Shutdown()
	<-g.speaking
	g.work.Wait()
	if !alone {
		<-time.After(probing)
	}
	if err != nil {
		return fmt.Errorf("close gossip: %w", err)
	}
	return nil
}
