package peers

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/podman-swarm/podman-swarm/internal/pki"
)

// address is one of this machine that nobody uses at the moment.
func address(t *testing.T) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return l.Addr().String()
}

// swarmOf opens nodes of one swarm that know each other.
func swarmOf(t *testing.T, names ...string) []*Peers {
	t.Helper()
	var all []*Peers
	var bundle []byte
	for _, name := range names {
		dir := t.TempDir() + "/pki"
		if bundle != nil {
			if err := pki.InstallBundle(dir, bundle); err != nil {
				t.Fatal(err)
			}
		}
		keys, err := pki.Open(dir)
		if err != nil {
			t.Fatal(err)
		}
		bundle = keys.Bundle()
		cert, err := keys.Node(name, "127.0.0.1")
		if err != nil {
			t.Fatal(err)
		}
		addr := address(t)
		p, err := Open(t.Context(), Config{
			Name: name, Bind: addr, Addr: addr, API: name + ":6443", Release: "v-test", Cluster: keys.Cluster(), Trust: cert,
			Keys: keys.GossipKeys(), Log: slog.New(slog.DiscardHandler),
		})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = p.Close() })
		if len(all) > 0 {
			if err := p.Gossip.Join(t.Context(), []string{all[0].cfg.Addr}); err != nil {
				t.Fatal(err)
			}
		}
		all = append(all, p)
	}
	for _, p := range all {
		waitFor(t, p, func() bool {
			alive := 0
			for _, m := range p.Members() {
				if m.Alive() && m.Meta.Release == "v-test" {
					alive++
				}
			}
			return alive == len(names)
		})
	}
	return all
}

func waitFor(t *testing.T, p *Peers, met func() bool) {
	t.Helper()
	late := time.After(20 * time.Second)
	for {
		changed := p.Changed()
		if met() {
			return
		}
		select {
		case <-changed:
		case <-late:
			t.Fatalf("it did not happen: %+v", p.Members())
		}
	}
}

func TestMembersAndStanding(t *testing.T) {
	all := swarmOf(t, "a", "b")
	if len(all[0].Membership().Peers()) != 0 {
		t.Error("replicas that have said nothing count as peers of the store")
	}
	all[1].Membership().Tell(standing())
	waitFor(t, all[0], func() bool {
		m, _ := all[0].Member("b")
		return m.Meta.Standing == standing() && m.Meta.API == "b:6443"
	})
	if got := all[0].Membership().Peers(); len(got) != 1 || got[0].Name != "b" || got[0].Addr != all[1].cfg.Addr || got[0].Standing != standing() {
		t.Errorf("peers of the store: %+v", got)
	}
	if _, ok := all[0].Member("c"); ok {
		t.Error("a node nobody has heard of is a member")
	}
}

func TestQuestions(t *testing.T) {
	all := swarmOf(t, "a", "b", "c")
	for _, p := range all {
		p.AnswerQuestions(Answers{
			"echo": func(_ context.Context, argument string) (any, error) { return []string{p.cfg.Name, argument}, nil },
			"fail": func(context.Context, string) (any, error) { return nil, errors.New("not today") },
			"odd":  func(context.Context, string) (any, error) { return func() {}, nil },
		})
	}
	var got []string
	if err := all[0].Ask(t.Context(), all[1].cfg.Addr, "echo", "x\n\"y\"", &got); err != nil || strings.Join(got, ",") != "b,x\n\"y\"" {
		t.Errorf("answered %q, %v", got, err)
	}
	for kind, want := range map[string]string{"fail": "not today", "never heard": "does not know the question \"never heard\"", "odd": "unsupported type"} {
		if err := all[0].Ask(t.Context(), all[1].cfg.Addr, kind, "", &got); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v, want %q", kind, err, want)
		}
	}
	if _, err := (Answers{}).to(t.Context(), []byte("{")); err == nil {
		t.Error("half a question was answered")
	}
	heard := map[string]bool{}
	if silent := AskAll(t.Context(), all[0], "echo", "", func(m Member, answer []string) { heard[m.Name+answer[0]] = true }); len(silent) > 0 || len(heard) != 3 || !heard["bb"] {
		t.Errorf("all: %v, silent %v", heard, silent)
	}
	if err := all[2].Close(); err != nil {
		t.Fatal(err)
	}
	if silent := AskAll(t.Context(), all[0], "echo", "", func(Member, []string) {}); len(silent) > 1 || len(silent) == 1 && silent[0] != "c" {
		t.Errorf("silent %v, want c unless it counts as dead already", silent)
	}
}

// echoServer answers what it got, backwards, when the other direction has ended.
func echoServer(t *testing.T) netip.AddrPort {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			go func() {
				defer c.Close()
				data, _ := io.ReadAll(c)
				fmt.Fprintf(c, "%d bytes of %s", len(data), data[:3])
			}()
		}
	}()
	return netip.MustParseAddrPort(l.Addr().String())
}

func TestDialPod(t *testing.T) {
	all := swarmOf(t, "a", "b")
	pods := netip.MustParsePrefix("127.0.0.0/8")
	all[1].AnswerDials(pods, (&net.Dialer{}).DialContext)
	pod := echoServer(t)

	c, err := all[0].DialPod(t.Context(), "b", "tcp", pod.String())
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	sent := strings.Repeat("abc", 100_000)
	if _, err := io.WriteString(c, sent); err != nil {
		t.Fatal(err)
	}
	if err := c.(interface{ CloseWrite() error }).CloseWrite(); err != nil {
		t.Fatal(err)
	}
	if got, err := io.ReadAll(c); err != nil || string(got) != fmt.Sprintf("%d bytes of abc", len(sent)) {
		t.Errorf("half-closed: %q, %v", got, err)
	}

	unused := address(t)
	for addr, want := range map[string]string{
		"192.0.2.1:80": "is not an address of this node's pods", "localhost:80": "is not an address of this node's pods",
		unused: "connection refused", pod.String() + strings.Repeat("0", maxLine): "pod on node b",
	} {
		if c, err := all[0].DialPod(t.Context(), "b", "tcp", addr); err == nil || !strings.Contains(err.Error(), want) || strings.Contains(err.Error(), "\n") {
			t.Errorf("dial %.40s: %v, %v, want %q", addr, c, err, want)
		}
	}
	if _, err := all[0].DialPod(t.Context(), "b", "udp", pod.String()); err == nil {
		t.Error("UDP was dialed")
	}
	if _, err := all[0].DialPod(t.Context(), "x", "tcp", pod.String()); err == nil || !strings.Contains(err.Error(), "pod on node x: it is not known here") {
		t.Errorf("dial a pod of a node that is not there: %v", err)
	}
}

// Who no longer waits for a pod is not kept waiting.
func TestDialPodEndsWithItsContext(t *testing.T) {
	all := swarmOf(t, "a", "b")
	asked := make(chan struct{})
	all[1].AnswerDials(netip.MustParsePrefix("10.0.0.0/8"), func(ctx context.Context, _, _ string) (net.Conn, error) {
		close(asked)
		<-ctx.Done()
		return nil, ctx.Err()
	})
	ctx, cancel := context.WithCancel(t.Context())
	go func() { <-asked; cancel() }()
	begin := time.Now()
	if _, err := all[0].DialPod(ctx, "b", "tcp", "10.0.0.1:80"); err == nil || time.Since(begin) > dialTimeout/2 {
		t.Errorf("%v after %v", err, time.Since(begin))
	}
}

func TestDialNode(t *testing.T) {
	all := swarmOf(t, "a", "b")
	l := all[1].Streams()
	defer l.Close()
	go func() {
		if c, err := l.Accept(); err == nil {
			_, _ = io.Copy(c, c)
			c.Close()
		}
	}()
	c, err := all[0].DialNode(t.Context(), "b")
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if _, err := io.WriteString(c, "hello"); err != nil {
		t.Fatal(err)
	}
	got := make([]byte, 5)
	if _, err := io.ReadFull(c, got); err != nil || string(got) != "hello" {
		t.Errorf("%q, %v", got, err)
	}
	if _, err := all[0].DialNode(t.Context(), "x"); err == nil || !strings.Contains(err.Error(), "not a member") {
		t.Errorf("dial a node that is not there: %v", err)
	}
}
