package helper

import (
	"errors"
	"flag"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"testing"

	"golang.org/x/tools/txtar"
	"pgregory.net/rapid"

	"github.com/podman-swarm/podman-swarm/internal/netd/wire"
)

var update = flag.Bool("update", false, "accept what the code produces as the golden files")

// TestAllocator compares with a model: no address twice, none outside the range, exhausted only
// when full, and the one that was given back first comes back first.
func TestAllocator(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		bits := rapid.IntRange(24, 29).Draw(t, "bits")
		cidr := netip.PrefixFrom(netip.MustParseAddr("10.244.9.0"), bits)
		size := 1<<(32-bits) - 3
		last := fromInt(toInt(cidr.Addr()) + rapid.Uint32Range(0, 300).Draw(t, "last"))
		var held []netip.Addr
		for i := range rapid.IntRange(0, size).Draw(t, "adopted") {
			held = append(held, fromInt(toInt(cidr.Addr())+2+uint32(i)))
		}
		a := newAllocator(cidr, held, last)
		var returned []netip.Addr
		fresh := size - len(held) // handed out before any returned one
		t.Repeat(map[string]func(*rapid.T){
			"take": func(t *rapid.T) {
				ip, err := a.take()
				if full := len(held) == size; full != errors.Is(err, wire.ErrExhausted) {
					t.Fatalf("%d of %d held: %v", len(held), size, err)
				}
				if err != nil {
					return
				}
				for _, h := range held {
					if h == ip {
						t.Fatalf("%s twice", ip)
					}
				}
				if !cidr.Contains(ip) || ip == cidr.Addr() || ip == cidr.Addr().Next() || !cidr.Contains(ip.Next()) {
					t.Fatalf("%s is reserved or outside of %s", ip, cidr)
				}
				if fresh > 0 {
					fresh--
				} else if ip != returned[0] {
					t.Fatalf("%s before %s, which was returned earlier", ip, returned[0])
				} else {
					returned = returned[1:]
				}
				held = append(held, ip)
			},
			"give": func(t *rapid.T) {
				if len(held) == 0 {
					t.Skip("nothing held")
				}
				i := rapid.IntRange(0, len(held)-1).Draw(t, "which")
				a.give(held[i])
				a.give(held[i]) // harmless
				returned = append(returned, held[i])
				held = append(held[:i:i], held[i+1:]...)
			},
		})
	})
}

func TestAllocatorGoesOnAfterLast(t *testing.T) {
	cidr := netip.MustParsePrefix("10.244.9.0/29")
	for last, want := range map[string]string{
		"10.244.9.3": "10.244.9.4", "10.244.9.6": "10.244.9.2", "10.1.1.1": "10.244.9.2", "10.244.9.1": "10.244.9.2",
	} {
		got, err := newAllocator(cidr, nil, netip.MustParseAddr(last)).take()
		if err != nil || got.String() != want {
			t.Errorf("after %s: %s, %v; want %s", last, got, err, want)
		}
	}
}

func TestLinkName(t *testing.T) {
	seen := make(map[string]string)
	for i := range 20000 {
		id := fmt.Sprintf("0b0e5c5e-7e37-4f2c-8a2d-%012d", i)
		name := LinkName(id)
		if len(name) > 15 || !isLinkName(name) {
			t.Fatalf("LinkName(%s) = %q", id, name)
		}
		if other, ok := seen[name]; ok {
			t.Fatalf("%s and %s are both %s", id, other, name)
		}
		seen[name] = id
	}
	if got := LinkName("pod-a"); got != "pswto4gbnfg4swp" {
		t.Errorf("LinkName(pod-a) = %s: a change loses the pods of running nodes", got)
	}
	for _, name := range []string{"psw0", "pswABCDEFGHIJKL", "eth0", "psw123456789012", "pswto4gbnfg4sw"} {
		if isLinkName(name) {
			t.Errorf("isLinkName(%s)", name)
		}
	}
}

func TestRules(t *testing.T) {
	path := filepath.Join("testdata", "rules.txtar")
	got := rules(netip.MustParsePrefix("10.244.7.0/24"), netip.MustParsePrefix("10.244.0.0/16"))
	if *update {
		a := &txtar.Archive{
			Comment: []byte("The nftables table of node 10.244.7.0/24.\n"),
			Files:   []txtar.File{{Name: "rules.nft", Data: []byte(got)}},
		}
		if err := os.WriteFile(path, txtar.Format(a), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	a, err := txtar.ParseFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if want := string(a.Files[0].Data); got != want {
		t.Errorf("got\n%s\nwant\n%s", got, want)
	}
}

func FuzzParseStat(f *testing.F) {
	f.Add([]byte("1 (a) b) S 1 1 1 0 -1 4194560 1 1 1 1 1 1 1 1 20 0 1 0 77 1 1"))
	f.Fuzz(func(_ *testing.T, b []byte) { _, _ = parseStat(b) })
}

func TestParseStat(t *testing.T) {
	const tail = " 1 1 1 0 -1 4194560 1 1 1 1 1 1 1 1 20 0 1 0 77 1 1\n"
	for in, want := range map[string]uint64{"9 (a) b) S" + tail: 77, "9 (slirp4netns) R" + tail: 77} {
		if got, err := parseStat([]byte(in)); err != nil || got != want {
			t.Errorf("%q: %d, %v", in, got, err)
		}
	}
	if _, err := parseStat([]byte("9 (gone) Z" + tail)); !errors.Is(err, os.ErrProcessDone) {
		t.Errorf("a zombie: %v", err)
	}
}

// TestProcessIdentity: a pid file counts only for the very process it was written for.
func TestProcessIdentity(t *testing.T) {
	path := filepath.Join(t.TempDir(), "p")
	p, err := Identify(os.Getpid())
	if err != nil {
		t.Fatal(err)
	}
	for name, c := range map[string]struct {
		change func(*Process)
		want   bool
	}{
		"itself":       {func(*Process) {}, true},
		"used again":   {func(p *Process) { p.Start++ }, false},
		"another boot": {func(p *Process) { p.Boot = "x" }, false},
		"gone":         {func(p *Process) { p.PID = 1 << 30 }, false},
	} {
		q := p
		c.change(&q)
		if err := q.Save(path); err != nil {
			t.Fatal(err)
		}
		if _, got := LoadProcess(path); got != c.want {
			t.Errorf("%s: %v", name, got)
		}
	}
	if err := os.WriteFile(path, []byte("1234"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, ok := LoadProcess(path); ok {
		t.Error("a damaged file counts")
	}
}

func TestGroupRange(t *testing.T) {
	for in, want := range map[string]string{
		"         0          0 4294967295\n":                  "0 2147483647",
		"         0       1000          1\n 1 100000 65536\n": "0 65536",
		"         0       1000          1\n 5 100000 65536\n": "0 0",
		"         0       1000          1\n":                  "0 0",
		"":                                                    "0 0",
	} {
		if got := groupRange([]byte(in)); got != want {
			t.Errorf("%q: %s, want %s", in, got, want)
		}
	}
}
