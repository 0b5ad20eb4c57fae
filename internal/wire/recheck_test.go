package wire

import (
	"context"
	"crypto/x509"
	"slices"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"
)

const callProto = "psw-call/1"

// pair are nodes a and b of a CA whose clocks are ahead by what the test says, with a stream and a kept
// connection for calls in either direction.
type pair struct {
	a, b   *Wire
	ia, ib *identity
	ahead  atomic.Int64
	live   []*Conn
}

func newPair(t *testing.T, ca *authority) *pair {
	t.Helper()
	p := &pair{ia: identify(ca.node("a"), ca.pool()), ib: identify(ca.node("b"), ca.pool())}
	clock := func(c *Config) {
		c.now = func() time.Time { return time.Now().Add(time.Duration(p.ahead.Load())) }
	}
	p.a, p.b = wireOf(t, p.ia, clock), wireOf(t, p.ib, clock)
	for _, w := range []*Wire{p.a, p.b} {
		w.Handle(proto, echo)
		w.Serve(callProto, same)
	}
	p.live = []*Conn{mustDial(t, p.a, p.b, proto), mustDial(t, p.b, p.a, proto)}
	p.work(t)
	return p
}

// call asks in both directions.
func (p *pair) call(ctx context.Context) error {
	_, err := p.a.Call(ctx, p.b.Addr().String(), callProto, nil)
	if err == nil {
		_, err = p.b.Call(ctx, p.a.Addr().String(), callProto, nil)
	}
	return err
}

func (p *pair) work(t *testing.T) {
	t.Helper()
	for _, c := range p.live {
		works(t, c)
	}
	if err := p.call(t.Context()); err != nil {
		t.Fatal(err)
	}
}

// follow does what FollowTrust does from time to time.
func (p *pair) follow(t *testing.T) {
	t.Helper()
	for _, w := range []*Wire{p.a, p.b} {
		w.greetAgain(t.Context())
		w.reverify()
	}
}

func (w *Wire) open() []*Conn {
	w.mu.Lock()
	defer w.mu.Unlock()
	var all []*Conn
	for c := range w.conns {
		all = append(all, c)
	}
	return all
}

// TestReverifyEndsWhatIsNotBelieved: an open connection ends with what it rests on, at whichever end. Recheck, which
// every change of any member asks for, leaves that alone: verifying all peers for it cost half a swarm of 50 nodes.
func TestReverifyEndsWhatIsNotBelieved(t *testing.T) {
	ca, next := newCA(t), newCA(t)
	for name, change := range map[string]func(p *pair){
		"the CA was dropped": func(p *pair) {
			p.ia.cert.Store(next.renew(p.ia.Certificate()))
			p.ia.roots.Store(next.pool())
		},
		"the certificate has expired": func(p *pair) { p.ahead.Store(int64(2 * time.Hour)) },
		"the other has a new key, and an impostor may hold the old one": func(p *pair) {
			p.ib.cert.Store(next.node("b"))
			p.ia.roots.Store(pool(ca, next))
			p.ib.roots.Store(pool(ca, next))
			p.a.greetAgain(t.Context())
			p.ia.roots.Store(next.pool())
		},
	} {
		t.Run(name, func(t *testing.T) {
			p := newPair(t, ca)
			p.a.reverify()
			p.work(t)
			change(p)
			p.a.Recheck()
			p.work(t)
			p.a.reverify()
			for _, c := range p.live {
				over(t, c)
			}
			if left := p.a.open(); len(left) != 0 {
				t.Errorf("%d connections are left", len(left))
			}
		})
	}
}

// TestRotationCutsNothing goes through the phases like nodes do: nobody drops the old CA before all have a
// certificate of the new one.
func TestRotationCutsNothing(t *testing.T) {
	old, next := newCA(t), newCA(t)
	p := newPair(t, old)
	ids := []*identity{p.ia, p.ib}
	before := [][]*Conn{p.a.open(), p.b.open()}
	for _, phase := range []func(*identity){
		func(i *identity) { i.roots.Store(pool(old, next)) },
		func(i *identity) { i.cert.Store(next.renew(i.Certificate())) },
		func(i *identity) { i.roots.Store(next.pool()) },
	} {
		for _, id := range ids {
			phase(id)
			p.follow(t)
			p.work(t)
		}
	}
	for i, w := range []*Wire{p.a, p.b} {
		after := w.open()
		for _, c := range before[i] {
			if !slices.Contains(after, c) {
				t.Errorf("the connection with %s was cut", c.Peer)
			}
		}
	}
}

// TestRenewalCutsNothing: connections outlive the certificates that they were made with.
func TestRenewalCutsNothing(t *testing.T) {
	ca := newCA(t)
	p := newPair(t, ca)
	for _, id := range []*identity{p.ia, p.ib} {
		id.cert.Store(ca.renew(id.Certificate()))
	}
	p.follow(t)
	for _, w := range []*Wire{p.a, p.b} {
		for _, c := range w.open() {
			want := p.ia.Certificate().Leaf
			if c.Peer == "b" {
				want = p.ib.Certificate().Leaf
			}
			if !c.chain[0].Equal(want) {
				t.Errorf("a connection with %s still rests on its old certificate", c.Peer)
			}
		}
	}
	p.work(t)
}

func TestAged(t *testing.T) {
	ca := newCA(t)
	c := &Conn{shown: ca.node("a"), chain: []*x509.Certificate{ca.node("b").Leaf}} // good from an hour ago for an hour
	for name, tc := range map[string]struct {
		own   *authority
		later time.Duration
		shown bool
		want  bool
	}{
		"nothing new":                {ca, 0, true, false},
		"the peer's grows old":       {ca, 40 * time.Minute, true, true},
		"it is renewed at a third":   {ca, 20 * time.Minute, true, false},
		"our own is another":         {ca, 0, false, true},
		"the peer's is of a left CA": {newCA(t), 0, true, true},
	} {
		own := tc.own.node("a")
		if c.shown = own; !tc.shown {
			c.shown = ca.node("a")
		}
		if got := c.aged(own, time.Now().Add(tc.later)); got != tc.want {
			t.Errorf("%s: %v, want %v", name, got, tc.want)
		}
	}
}

func TestFollowTrustLooksInTime(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		news := make(chan struct{})
		var changed atomic.Pointer[chan struct{}]
		changed.Store(&news)
		var greeted, rechecked atomic.Int64
		ctx, end := context.WithCancel(t.Context())
		ended := make(chan struct{})
		go func() {
			defer close(ended)
			follow(ctx, func() <-chan struct{} { return *changed.Load() },
				func(context.Context) { greeted.Add(1) }, func() { rechecked.Add(1) })
		}()
		want := func(n int64) {
			t.Helper()
			synctest.Wait()
			if got := rechecked.Load(); got != n {
				t.Errorf("rechecked %d times, want %d", got, n)
			}
		}
		want(1)
		<-time.After(recheckEvery - time.Second)
		want(1)
		<-time.After(2 * greetEvery)
		want(2)
		next := make(chan struct{})
		changed.Store(&next)
		close(news)
		want(3)
		if n := int64(recheckEvery / greetEvery); greeted.Load() < n {
			t.Errorf("greeted %d times, want %d at least", greeted.Load(), n)
		}
		end()
		<-ended
	})
}

// TestFollowTrust: the news are heeded at once.
func TestFollowTrust(t *testing.T) {
	ca := newCA(t)
	p := newPair(t, ca)
	news := make(chan struct{})
	var asked atomic.Int64
	ctx, end := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() {
		ended <- p.a.FollowTrust(ctx, func() <-chan struct{} {
			if asked.Add(1) > 1 {
				return nil
			}
			return news
		})
	}()
	eventually(t, "it follows", func() bool { return asked.Load() == 1 })
	p.work(t)
	p.ia.roots.Store(newCA(t).pool())
	close(news)
	for _, c := range p.live {
		over(t, c)
	}
	end()
	if err := <-ended; err != nil {
		t.Error(err)
	}
}
