package wire

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"testing"
)

func TestRenewalNeedsNoRestart(t *testing.T) {
	ca := newCA(t)
	ia, ib := identify(ca.node("a"), ca.pool()), identify(ca.node("b"), ca.pool())
	a, b := wireOf(t, ia), wireOf(t, ib)
	seen := make(chan *x509.Certificate, 2)
	b.Handle(proto, func(ctx context.Context, c *Conn) { seen <- c.chain[0]; echo(ctx, c) })
	before := mustDial(t, a, b, proto)
	first := <-seen
	old := [2]*tls.Certificate{ia.Certificate(), ib.Certificate()}
	ia.cert.Store(ca.node("a"))
	ib.cert.Store(ca.node("b"))
	after := mustDial(t, a, b, proto)
	works(t, before)
	works(t, after)
	if second := <-seen; !first.Equal(old[0].Leaf) || !second.Equal(ia.Certificate().Leaf) {
		t.Error("the dialing end does not show what it holds now")
	}
	if !before.chain[0].Equal(old[1].Leaf) || !after.chain[0].Equal(ib.Certificate().Leaf) {
		t.Error("the accepting end does not show what it holds now")
	}
}

// TestRotationOfTheCA goes through its phases on two nodes that are never in the same phase, with streams and
// calls going on.
func TestRotationOfTheCA(t *testing.T) {
	old, next := newCA(t), newCA(t)
	ids := map[string]*identity{"a": identify(old.node("a"), old.pool()), "b": identify(old.node("b"), old.pool())}
	a, b := wireOf(t, ids["a"]), wireOf(t, ids["b"])
	a.Handle(proto, echo)
	b.Handle(proto, echo)
	b.Serve("psw-call/1", func(_ context.Context, peer string, req []byte) []byte { return append(req, peer...) })
	live := []*Conn{mustDial(t, a, b, proto), mustDial(t, b, a, proto)}
	check := func(phase string) {
		t.Helper()
		live = append(live, mustDial(t, a, b, proto), mustDial(t, b, a, proto))
		for _, c := range live {
			works(t, c)
		}
		if got, err := a.Call(t.Context(), b.Addr().String(), "psw-call/1", []byte("from ")); err != nil || string(got) != "from a" {
			t.Errorf("%s: call: %q, %v", phase, got, err)
		}
	}
	for _, phase := range []struct {
		name string
		do   func(node string)
	}{
		{"as it was", func(string) {}},
		{"trust the new", func(n string) { ids[n].roots.Store(pool(old, next)) }},
		{"issue by the new", func(n string) { ids[n].cert.Store(next.node(n)) }},
		{"drop the old", func(n string) { ids[n].roots.Store(next.pool()) }},
	} {
		for _, node := range []string{"a", "b"} {
			phase.do(node)
			check(phase.name + " on " + node)
		}
	}
	left := wireOf(t, identify(old.node("c"), pool(old, next)))
	_, err := left.Dial(t.Context(), b.Addr().String(), proto)
	wantError(t, err, "does not accept this node's certificate")
}
