package gossip

import (
	"context"
	"fmt"
	"net"
	"os"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// listen binds a TCP port whose number is free for UDP too.
func listen(t *testing.T) (net.Listener, net.PacketConn) {
	t.Helper()
	for range 20 {
		l, err := new(net.ListenConfig).Listen(t.Context(), "tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		p, err := new(net.ListenConfig).ListenPacket(t.Context(), "udp", l.Addr().String())
		if err == nil {
			return l, p
		}
		_ = l.Close()
	}
	t.Fatal("no port is free for both")
	return nil, nil
}

func dialTCP(ctx context.Context, addr string) (net.Conn, error) {
	return new(net.Dialer).DialContext(ctx, "tcp", addr)
}

// openReal is a member on the loopback, over the kernel's sockets.
func openReal(t *testing.T, name string) *Gossip {
	t.Helper()
	l, p := listen(t)
	_ = p.Close() // Open binds it itself
	g, err := Open(t.Context(), Config{
		Name: name, Addr: l.Addr().String(), Bind: l.Addr().String(), Keys: [][]byte{key(1)}, Label: "cluster",
		Listener: l, Dial: dialTCP, Meta: []byte(name),
	})
	if err != nil {
		t.Fatal(err)
	}
	return g
}

// eventually waits for a condition, woken by changes only.
func eventually(t *testing.T, g *Gossip, what string, ok func([]Member) bool) {
	t.Helper()
	late := time.After(15 * time.Second)
	for {
		changed := g.Changed()
		if ok(g.Members()) {
			return
		}
		select {
		case <-changed:
		case <-late:
			t.Fatalf("%s: %v", what, g.Members())
		}
	}
}

func states(want ...State) func([]Member) bool {
	return func(ms []Member) bool {
		if len(ms) != len(want) {
			return false
		}
		for i, m := range ms {
			if m.State != want[i] {
				return false
			}
		}
		return true
	}
}

func TestLoopback(t *testing.T) {
	a, b, c := openReal(t, "a"), openReal(t, "b"), openReal(t, "c")
	for _, g := range []*Gossip{b, c} {
		if err := g.Join(t.Context(), []string{a.addr.String()}); err != nil {
			t.Fatal(err)
		}
	}
	for _, g := range []*Gossip{a, b, c} {
		eventually(t, g, "all see all", states(Alive, Alive, Alive))
	}
	if err := b.SetMeta([]byte("said")); err != nil {
		t.Fatal(err)
	}
	eventually(t, c, "metadata arrives", func(ms []Member) bool { return string(ms[1].Meta) == "said" })
	if err := b.Leave(t.Context()); err != nil {
		t.Fatal(err)
	}
	eventually(t, a, "b has left", states(Alive, Left, Alive))
	if err := c.Close(); err != nil {
		t.Fatal(err)
	}
	eventually(t, a, "c is dead", states(Alive, Left, Dead))
	for _, g := range []*Gossip{a, b, c} { // the second time for c
		if err := g.Close(); err != nil {
			t.Error(err)
		}
	}
	if err := a.SetMeta(nil); err == nil {
		t.Error("metadata is accepted after Close")
	}
	if err := a.Join(t.Context(), []string{"127.0.0.1:1"}); err == nil {
		t.Error("joined after Close")
	}
	if _, err := net.DialTimeout("tcp", a.addr.String(), time.Second); err == nil {
		t.Error("the listener outlives Close")
	}
}

// TestCloseEndsStreams closes a member with streams in every state, which memberlist would keep for
// seconds, with probes in flight, and with a dial that does not return by itself.
func TestCloseEndsStreams(t *testing.T) {
	before := goleak.IgnoreCurrent()
	l, p := listen(t)
	dialing := make(chan struct{}, 1)
	g, err := Open(t.Context(), Config{
		Name: "a", Addr: l.Addr().String(), Packets: p, Keys: [][]byte{key(1)}, Label: "cluster", Listener: l,
		Dial: func(ctx context.Context, _ string) (net.Conn, error) {
			dialing <- struct{}{}
			<-ctx.Done()
			return nil, ctx.Err()
		},
	})
	if err != nil {
		t.Fatal(err)
	}
	var open []net.Conn
	for i := range 3 {
		c, err := dialTCP(t.Context(), l.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		// Silence, half a label, a label and nothing behind it.
		if _, err := c.Write([]byte("\xf4\x07cluster")[:[]int{0, 3, 9}[i]]); err != nil {
			t.Fatal(err)
		}
		open = append(open, c)
	}
	joined := make(chan error, 1)
	go func() { joined <- g.Join(t.Context(), []string{"127.0.0.1:9"}) }()
	<-dialing
	start := time.Now()
	if err := g.Close(); err != nil {
		t.Fatal(err)
	}
	if took := time.Since(start); took > 3*probeInterval {
		t.Errorf("Close took %v", took)
	}
	if err := <-joined; err == nil {
		t.Error("joined nobody")
	}
	for _, c := range open {
		if err := c.SetReadDeadline(time.Now().Add(time.Second)); err != nil {
			t.Fatal(err)
		}
		if _, err := c.Read(make([]byte, 1)); err == nil || os.IsTimeout(err) {
			t.Errorf("a stream is open after Close: %v", err)
		}
	}
	if err := goleak.Find(before); err != nil {
		t.Error(err)
	}
}

// TestInboundStreamsAreBounded opens more streams than are served at a time.
func TestInboundStreamsAreBounded(t *testing.T) {
	g := openReal(t, "a")
	defer g.Close()
	refused := 0
	for i := range maxInbound + 1 {
		c, err := dialTCP(t.Context(), g.addr.String())
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		if i < maxInbound {
			continue
		}
		if err := c.SetReadDeadline(time.Now().Add(2 * time.Second)); err != nil {
			t.Fatal(err)
		}
		if _, err := c.Read(make([]byte, 1)); err != nil && !os.IsTimeout(err) {
			refused++
		}
	}
	if refused != 1 {
		t.Errorf("%d streams were refused", refused)
	}
}

func TestOpenErrors(t *testing.T) {
	taken, err := new(net.ListenConfig).ListenPacket(t.Context(), "udp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer taken.Close()
	for _, tt := range []struct {
		name   string
		change func(*Config)
		want   []string
	}{
		{"nothing set", func(c *Config) { *c = Config{Listener: c.Listener} }, []string{"name", "label", "Dial", "Bind", "key"}},
		{"metadata", func(c *Config) { c.Meta = make([]byte, MaxMeta+1) }, []string{"512 bytes, at most 511"}},
		{"key", func(c *Config) { c.Keys = append(c.Keys, []byte("short")) }, []string{"key 1 has 5 bytes"}},
		{"unspecified", func(c *Config) { c.Addr = "[::]:7946" }, []string{"nobody can be reached"}},
		{"port", func(c *Config) { c.Addr = "127.0.0.1:0" }, []string{"port"}},
		{"bind", func(c *Config) { c.Bind = taken.LocalAddr().String() }, []string{"open gossip socket", "in use"}},
	} {
		l, err := new(net.ListenConfig).Listen(t.Context(), "tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		cfg := Config{
			Name: "a", Addr: "127.0.0.1:7946", Bind: "127.0.0.1:0", Keys: [][]byte{key(1)}, Label: "cluster",
			Listener: l, Dial: dialTCP,
		}
		tt.change(&cfg)
		g, err := Open(t.Context(), cfg)
		if err == nil {
			t.Errorf("%s: opened", tt.name)
			_ = g.Close()
			continue
		}
		for _, want := range tt.want {
			if !strings.Contains(fmt.Sprint(err), want) {
				t.Errorf("%s: %v, want %q", tt.name, err, want)
			}
		}
		if _, err := l.Accept(); err == nil {
			t.Errorf("%s: the listener is still open", tt.name)
		}
	}
}
