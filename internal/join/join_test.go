package join

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/podman-swarm/podman-swarm/internal/pki"
	"github.com/podman-swarm/podman-swarm/internal/state"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// cluster is one node with a store, whose admitter answers at any address.
type cluster struct {
	*Admitter
	t     *testing.T
	store *state.Store
	keys  *pki.Authority
	cert  *pki.NodeCert
	wg    sync.WaitGroup
}

func newCluster(t *testing.T) *cluster {
	t.Helper()
	keys, err := pki.Open(filepath.Join(t.TempDir(), "pki"))
	if err != nil {
		t.Fatal(err)
	}
	cert, err := keys.Node("n1", "192.0.2.1")
	if err != nil {
		t.Fatal(err)
	}
	store, err := state.Open(t.Context(), state.Config{NodeID: "n1", Log: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	c := &cluster{t: t, store: store, keys: keys, cert: cert}
	c.Admitter = c.admitter(store)
	t.Cleanup(func() {
		c.wg.Wait()
		if err := store.Close(); err != nil {
			t.Error(err)
		}
	})
	if _, err := c.Enroll(t.Context(), "n1", "192.0.2.1:7946", cert.Certificate().Leaf.RawSubjectPublicKeyInfo, netip.Prefix{}); err != nil {
		t.Fatal(err)
	}
	return c
}

func (c *cluster) admitter(s Store) *Admitter {
	return New(Config{
		Keys: c.keys, Store: s, Release: "v1.0.0", Format: 3,
		PodRange: netip.MustParsePrefix("10.244.0.0/16"), ServiceRange: netip.MustParsePrefix("10.43.0.0/16"),
		Peers:   func() []string { return []string{"192.0.2.1:7946"} },
		Lineage: func() string { return "lineage-1" },
		Log:     slog.New(slog.DiscardHandler),
	})
}

func (c *cluster) token(ttl time.Duration, uses int) pki.Token {
	c.t.Helper()
	token, err := c.Tokens().Create(c.t.Context(), ttl, uses, "a test")
	if err != nil {
		c.t.Fatal(err)
	}
	return token
}

// dialTo returns a Dialer to the admitter; wrap, when not nil, stands between TLS and the newcomer,
// and may close the connection below TLS.
func (c *cluster) dialTo(a *Admitter, wrap func(conn, below net.Conn) net.Conn) Dialer {
	return func(ctx context.Context, _ string, verify func([]*x509.Certificate) error) (net.Conn, error) {
		near, far := net.Pipe()
		c.wg.Go(func() {
			defer far.Close()
			conn := tls.Server(far, &tls.Config{MinVersion: tls.VersionTLS13, Certificates: []tls.Certificate{*c.cert.Certificate()}, SessionTicketsDisabled: true})
			if conn.HandshakeContext(ctx) == nil {
				a.Serve(c.t.Context(), conn)
			}
		})
		conn := tls.Client(near, &tls.Config{
			MinVersion: tls.VersionTLS13, InsecureSkipVerify: true,
			VerifyConnection: func(s tls.ConnectionState) error { return verify(s.PeerCertificates) },
		})
		if err := conn.HandshakeContext(ctx); err != nil {
			near.Close()
			return nil, err
		}
		if wrap != nil {
			return wrap(conn, near), nil
		}
		return conn, nil
	}
}

func (c *cluster) newcomer(name string, token pki.Token) Newcomer {
	c.t.Helper()
	key, err := pki.NewNodeKey()
	if err != nil {
		c.t.Fatal(err)
	}
	return Newcomer{
		Token: token.String(), Nodes: []string{"192.0.2.1:7946"}, Dial: c.dialTo(c.Admitter, nil),
		Dir: filepath.Join(c.t.TempDir(), "pki"), Name: name, Address: "192.0.2.99:7946",
		Release: "v1.0.1", Format: 3, Key: key,
	}
}

// nothing checks that a failed join left nothing: no file, no record, no use.
func (c *cluster) nothing(n Newcomer, id string, uses int) {
	c.t.Helper()
	c.wg.Wait()
	if left, err := os.ReadDir(filepath.Dir(n.Dir)); err != nil || len(left) != 0 {
		c.t.Errorf("left on the newcomer: %v, %v", left, err)
	}
	if e, ok := c.store.View().Get(NodesPrefix + n.Name); ok && n.Name != "n1" {
		c.t.Errorf("left in the store: %s", e.Value)
	}
	if got := c.uses(id); got != uses {
		c.t.Errorf("token %s was used %d times, want %d", id, got, uses)
	}
}

func (c *cluster) uses(id string) int {
	list, err := c.Tokens().List(c.t.Context())
	if err != nil {
		c.t.Fatal(err)
	}
	for _, rec := range list {
		if rec.ID == id {
			return rec.Uses
		}
	}
	return 0
}

func TestJoin(t *testing.T) {
	c := newCluster(t)
	token := c.token(time.Hour, 2)
	n := c.newcomer("n2", token)
	adm, err := Join(t.Context(), n)
	if err != nil {
		t.Fatal(err)
	}
	if adm.PodCIDR.String() != "10.244.1.0/24" || adm.ServiceRange.String() != "10.43.0.0/16" || adm.Cluster != c.keys.Cluster() ||
		adm.Lineage != "lineage-1" || len(adm.Peers) != 1 || adm.Release != "v1.0.0" || adm.PodRange.String() != "10.244.0.0/16" {
		t.Errorf("got %+v", adm)
	}
	keys, err := pki.Open(n.Dir)
	if err != nil {
		t.Fatal(err)
	}
	cert, err := keys.Node("n2", "192.0.2.99")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := cert.Certificate().Leaf.Verify(x509.VerifyOptions{Roots: c.cert.Roots(), DNSName: "192.0.2.99"}); err != nil {
		t.Error(err)
	}
	if !bytes.Equal(keys.Bundle(), c.keys.Bundle()) {
		t.Error("not the cluster's keys")
	}
	nodes := Nodes(c.store.View())
	if len(nodes) != 2 || nodes[1].Name != "n2" || nodes[1].PodCIDR != adm.PodCIDR || nodes[1].Address != n.Address || nodes[1].Token != token.ID {
		t.Errorf("got %+v", nodes)
	}
	if e, _ := c.store.View().Get(NodesPrefix + "n2"); e.Expires != 0 {
		t.Error("the record of a node expires")
	}
	// The same newcomer again, whose last word was lost: same range, no other use.
	n.Dir = filepath.Join(t.TempDir(), "pki")
	again, err := Join(t.Context(), n)
	if err != nil || again.PodCIDR != adm.PodCIDR || c.uses(token.ID) != 1 {
		t.Errorf("again: got %+v, %v, %d uses", again, err, c.uses(token.ID))
	}
	wish := c.newcomer("n3", token)
	wish.PodCIDR = netip.MustParsePrefix("10.244.200.0/24")
	if adm, err := Join(t.Context(), wish); err != nil || adm.PodCIDR != wish.PodCIDR {
		t.Errorf("wish: got %+v, %v", adm, err)
	}
	if _, err := c.Enroll(t.Context(), "n2", "x:1", cert.Certificate().Leaf.RawSubjectPublicKeyInfo, netip.Prefix{}); err != nil {
		t.Errorf("a node at its next start: %v", err)
	}
	// It lost its own key and moved: it holds the cluster's keys, so it is believed.
	moved, err := c.Enroll(t.Context(), "n2", "y:1", []byte("another"), netip.Prefix{})
	if err != nil || moved.PodCIDR != adm.PodCIDR || moved.Address != "y:1" || moved.Key != KeyID([]byte("another")) || !moved.Admitted.Equal(nodeOf(t, c, "n2").Admitted) {
		t.Errorf("with another key: %+v, %v", moved, err)
	}
}

func nodeOf(t *testing.T, c *cluster, name string) Node {
	t.Helper()
	for _, n := range Nodes(c.store.View()) {
		if n.Name == name {
			return n
		}
	}
	t.Fatalf("no record of %s", name)
	return Node{}
}

func reason(err error) Reason {
	var r *Refusal
	if errors.As(err, &r) {
		return r.Reason
	}
	return ""
}

func TestRefusals(t *testing.T) {
	c := newCluster(t)
	other := newCluster(t)
	type setup struct {
		n     *Newcomer
		token pki.Token
	}
	used := c.token(time.Hour, 1)
	if _, err := Join(t.Context(), c.newcomer("first", used)); err != nil {
		t.Fatal(err)
	}
	shift := func(s setup, d time.Duration) { s.n.now = func() time.Time { return time.Now().Add(d) } }
	tests := map[string]struct {
		change func(s setup)
		want   Reason
		text   string
	}{
		"mistyped":          {func(s setup) { s.n.Token = s.n.Token[:60] + "zz" + s.n.Token[62:] }, Mistyped, "copy the whole token"},
		"wrong secret":      {func(s setup) { s.token.Secret[0] ^= 1; s.n.Token = s.token.String() }, WrongToken, "make a new token"},
		"wrong id":          {func(s setup) { s.token.ID = "aaaaaaaa"; s.n.Token = s.token.String() }, WrongToken, "aaaaaaaa"},
		"expired":           {func(s setup) { c.expire(s.token.ID) }, Expired, "expired at"},
		"used up":           {func(s setup) { s.n.Token = used.String() }, UsedUp, "1 of 1"},
		"revoked":           {func(s setup) { c.revoke(s.token.ID) }, Revoked, "was revoked"},
		"other CA":          {func(s setup) { s.n.Dial = other.dialTo(other.Admitter, nil) }, OtherCluster, "another cluster"},
		"other CA in token": {func(s setup) { s.n.Dial = c.blindly(); s.n.Token = other.token(time.Hour, 0).String() }, OtherCluster, "another cluster"},
		"clock behind":      {func(s setup) { shift(s, -6*time.Minute) }, Clock, "valid from"},
		"clock ahead":       {func(s setup) { shift(s, 6*time.Minute) }, Clock, "more than 5m0s apart"},
		"clock far behind":  {func(s setup) { shift(s, -24*time.Hour) }, Clock, "valid from"},
		"clock far ahead":   {func(s setup) { shift(s, 100*24*time.Hour) }, Clock, "set the clock"},
		"name taken":        {func(s setup) { s.n.Name = "n1" }, NameTaken, "choose another name"},
		"newer":             {func(s setup) { s.n.Format = 4; s.n.Release = "v2.0.0" }, Release, "install v1.0.0"},
		"older":             {func(s setup) { s.n.Format = 2 }, Release, "cannot be mixed"},
		"bad name":          {func(s setup) { s.n.Name = "N_2" }, "", "node name"},
		"bad address":       {func(s setup) { s.n.Address = "0.0.0.0:7946" }, "", "cannot be reached"},
		"no address":        {func(s setup) { s.n.Address = "host" }, "", "host:port"},
		"range outside":     {func(s setup) { s.n.PodCIDR = netip.MustParsePrefix("10.1.0.0/24") }, NoRange, "not within"},
		"range taken":       {func(s setup) { s.n.PodCIDR = netip.MustParsePrefix("10.244.0.0/25") }, NoRange, "node n1's"},
		"full directory":    {func(s setup) { s.n.Dir = filepath.Join(t.TempDir(), "x", "pki") }, "", "no such file"},
		"nobody there":      {func(s setup) { s.n.Dial = deaf }, "", "check the addresses"},
		"unverified":        {func(s setup) { s.n.Dial = c.careless() }, "", "not looked at"},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			token := c.token(time.Hour, 5)
			n := c.newcomer("n2", token)
			dir := n.Dir
			tt.change(setup{&n, token})
			_, err := Join(t.Context(), n)
			if err == nil || reason(err) != tt.want || !strings.Contains(err.Error(), tt.text) || strings.Contains(err.Error(), "\n") {
				t.Errorf("got %q (%v), want one line with %q", reason(err), err, tt.text)
			}
			n.Dir = dir
			c.nothing(n, token.ID, 0)
			c.guess = throttle{}
		})
	}
	if got := len(Nodes(c.store.View())); got != 2 {
		t.Errorf("the cluster has %d nodes", got)
	}
}

func deaf(context.Context, string, func([]*x509.Certificate) error) (net.Conn, error) {
	return nil, errors.New("connection refused")
}

// blindly accepts any node, so that the node's own check of the token is reached.
func (c *cluster) blindly() Dialer {
	good := c.token(time.Hour, 0)
	dial := c.dialTo(c.Admitter, nil)
	return func(ctx context.Context, addr string, pin func([]*x509.Certificate) error) (net.Conn, error) {
		return dial(ctx, addr, func(chain []*x509.Certificate) error {
			_ = pin(chain)
			return verify(good, time.Now(), chain)
		})
	}
}

func (c *cluster) careless() Dialer {
	dial := c.dialTo(c.Admitter, nil)
	return func(ctx context.Context, addr string, _ func([]*x509.Certificate) error) (net.Conn, error) {
		return dial(ctx, addr, func([]*x509.Certificate) error { return nil })
	}
}

func (c *cluster) expire(id string) {
	c.t.Helper()
	err := c.tokens.change(c.t.Context(), id, func(r *TokenRecord) (bool, error) {
		r.Expires = time.Now().Add(-time.Second)
		return true, nil
	})
	if err != nil {
		c.t.Fatal(err)
	}
}

func (c *cluster) revoke(id string) {
	c.t.Helper()
	if err := c.Tokens().Revoke(c.t.Context(), id); err != nil {
		c.t.Fatal(err)
	}
}

// The node refuses by itself what a well-behaved newcomer never sends.
func TestNodeRefusesBadMessages(t *testing.T) {
	c := newCluster(t)
	token := c.token(time.Hour, 1)
	n := c.newcomer("n2", token)
	good, err := n.request()
	if err != nil {
		t.Fatal(err)
	}
	good.Clock = time.Now().UnixMilli()
	with := func(change func(r *request)) func(io.Writer) error {
		return func(w io.Writer) error {
			r := *good
			change(&r)
			return send(w, &r)
		}
	}
	for name, tt := range map[string]struct {
		write func(io.Writer) error
		want  Reason
	}{
		"not JSON":       {func(w io.Writer) error { _, err := w.Write([]byte{0, 0, 0, 1, '{'}); return err }, BadRequest},
		"too long":       {func(w io.Writer) error { _, err := w.Write([]byte{1, 0, 0, 0}); return err }, BadRequest},
		"another's name": {with(func(r *request) { r.Name = "n3" }), BadRequest},
		"no CSR":         {with(func(r *request) { r.CSR = nil }), BadRequest},
		"no port":        {with(func(r *request) { r.Address = "192.0.2.9" }), BadRequest},
		"no range":       {with(func(r *request) { r.PodCIDR = "10.244.0.1/24" }), BadRequest},
		"mistyped":       {with(func(r *request) { r.Token = "pswt1" }), Mistyped},
		"clock":          {with(func(r *request) { r.Clock = 0 }), Clock},
		"other cluster":  {with(func(r *request) { r.Token = pki.NewToken([32]byte{1}).String() }), OtherCluster},
	} {
		t.Run(name, func(t *testing.T) {
			near, far := net.Pipe()
			c.wg.Go(func() {
				defer far.Close()
				c.Serve(t.Context(), far)
			})
			defer near.Close()
			if err := tt.write(near); err != nil {
				t.Fatal(err)
			}
			data, err := receive(near, maxAnswer)
			if err != nil {
				t.Fatal(err)
			}
			ans, err := decodeAnswer(data, "n2", good.CSR, token.CA)
			if err != nil || ans.Refusal == nil || ans.Refusal.Reason != tt.want || ans.Certificate != nil || ans.Bundle != nil {
				t.Errorf("got %+v, %v, want only the refusal %s", ans, err, tt.want)
			}
			c.nothing(n, token.ID, 0)
		})
	}
}

func TestTokens(t *testing.T) {
	c := newCluster(t)
	ctx := t.Context()
	for _, bad := range []struct {
		ttl  time.Duration
		uses int
	}{{-1, 0}, {time.Millisecond, 0}, {20 * 365 * 24 * time.Hour, 0}, {time.Hour, -1}} {
		if _, err := c.Tokens().Create(ctx, bad.ttl, bad.uses, ""); err == nil {
			t.Errorf("made a token of %v", bad)
		}
	}
	forever, short := c.token(0, 0), c.token(time.Minute, 3)
	list, err := c.Tokens().List(ctx)
	if err != nil || len(list) != 2 || list[0].ID != short.ID || list[1].ID != forever.ID || list[0].MaxUses != 3 || list[0].Description != "a test" {
		t.Fatalf("got %+v, %v", list, err)
	}
	for _, token := range []pki.Token{forever, short} {
		e, _ := c.store.View().Get(tokensPrefix + token.ID)
		if bytes.Contains(e.Value, token.Secret[:]) || strings.Contains(string(e.Value), token.String()[len(token.String())-32:]) {
			t.Error("the secret is stored")
		}
		if got := e.Expires != 0; got != (token == short) {
			t.Errorf("token %s: expires: %v", token.ID, got)
		}
	}
	for range 2 {
		c.revoke(short.ID)
	}
	if err := c.Tokens().Revoke(ctx, "none"); !errors.Is(err, ErrNoToken) {
		t.Errorf("got %v", err)
	}
	if _, err := Join(ctx, c.newcomer("n2", forever)); err != nil {
		t.Errorf("a token that never expires: %v", err)
	}
}

func TestGuessesAreSlowed(t *testing.T) {
	c := newCluster(t)
	good := c.token(time.Hour, 0)
	wrong := pki.NewToken(c.keys.CAHash())
	for i := range maxFailures {
		if _, err := Join(t.Context(), c.newcomer("n2", wrong)); reason(err) != WrongToken {
			t.Fatalf("guess %d: %v", i, err)
		}
	}
	if _, err := Join(t.Context(), c.newcomer("n2", good)); reason(err) != TooMany {
		t.Errorf("after %d guesses: %v", maxFailures, err)
	}
	c.wg.Wait()
	c.now = func() time.Time { return time.Now().Add(guessWindow) }
	if _, err := Join(t.Context(), c.newcomer("n2", good)); err != nil {
		t.Errorf("a minute later: %v", err)
	}
}

func TestThrottle(t *testing.T) {
	var th throttle
	now := time.Unix(1000, 0)
	at := func(s string) netip.Prefix { return stranger(net.TCPAddrFromAddrPort(netip.MustParseAddrPort(s))) }
	for range maxFailures {
		th.failed(at("192.0.2.1:1"), now)
		th.failed(at("[2001:db8::1]:1"), now)
	}
	for addr, want := range map[string]bool{
		"192.0.2.1:2": false, "[::ffff:192.0.2.1]:2": false, "192.0.2.2:1": true,
		"[2001:db8::2]:1": false, "[2001:db8:0:1::1]:1": true,
	} {
		if got := th.allowed(at(addr), now.Add(time.Second)); got != want {
			t.Errorf("%s: allowed %v", addr, got)
		}
	}
	if !th.allowed(at("192.0.2.1:1"), now.Add(guessWindow)) {
		t.Error("not forgiven")
	}
	for i := range 2 * maxStrangers {
		th.failed(at(fmt.Sprintf("10.%d.%d.%d:1", i>>16, i>>8&255, i&255)), now.Add(time.Duration(i)*time.Millisecond))
	}
	if len(th.failures) > maxStrangers {
		t.Errorf("%d addresses are remembered", len(th.failures))
	}
	if stranger(nil) != stranger(&net.UnixAddr{}) {
		t.Error("unknown addresses differ")
	}
}
