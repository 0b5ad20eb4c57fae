package netd

import (
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"

	"golang.org/x/tools/txtar"
	"pgregory.net/rapid"
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
				if full := len(held) == size; full != errors.Is(err, ErrExhausted) {
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
		name := linkName(id)
		if len(name) > 15 || !isLinkName(name) {
			t.Fatalf("linkName(%s) = %q", id, name)
		}
		if other, ok := seen[name]; ok {
			t.Fatalf("%s and %s are both %s", id, other, name)
		}
		seen[name] = id
	}
	if got := linkName("pod-a"); got != "pswto4gbnfg4swp" {
		t.Errorf("linkName(pod-a) = %s: a change loses the pods of running nodes", got)
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

func TestConfigErrors(t *testing.T) {
	good := Config{PodCIDR: netip.MustParsePrefix("10.244.7.0/24"), RunDir: "/run/x"}.withDefaults().setup()
	if err := good.validate(); err != nil {
		t.Fatal(err)
	}
	for want, change := range map[string]func(*setup){
		"not an IPv4 range":     func(s *setup) { s.PodCIDR = netip.MustParsePrefix("fd00::/64") },
		"its size must be":      func(s *setup) { s.PodCIDR = netip.MustParsePrefix("10.244.7.0/30") },
		"outside the cluster's": func(s *setup) { s.PodCIDR = netip.MustParsePrefix("10.1.0.0/24") },
		"not an absolute path":  func(s *setup) { s.RunDir = "run" },
		"longer than 200 bytes": func(s *setup) { s.RunDir = "/" + strings.Repeat("x", 200) },
		"is not in 576..65535":  func(s *setup) { s.MTU = 100 },
	} {
		bad := good
		change(&bad)
		if err := bad.validate(); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("got %v, want ...%s...", err, want)
		}
	}
}

func TestCheckID(t *testing.T) {
	for id, ok := range map[string]bool{
		"0b0e5c5e-7e37-4f2c-8a2d-000000000001": true, "a": true, "": false, "_net": false, "..": false, ".": false,
		"a/b": false, "a b": false, strings.Repeat("a", 63): true, strings.Repeat("a", 64): false, "a\x00": false,
	} {
		if err := checkID(id); (err == nil) != ok {
			t.Errorf("checkID(%q) = %v", id, err)
		}
	}
}

func TestErrorsTravel(t *testing.T) {
	for _, want := range []error{ErrExhausted, ErrNoPod} {
		b, err := json.Marshal(failure(fmt.Errorf("do it: %w here", want)))
		if err != nil {
			t.Fatal(err)
		}
		r, err := decodeReply(b)
		if err != nil {
			t.Fatal(err)
		}
		if got := r.asError(); !errors.Is(got, want) || got.Error() != "do it: "+want.Error()+" here" {
			t.Errorf("%v became %v", want, got)
		}
	}
}

func FuzzDecodeRequest(f *testing.F) {
	f.Add([]byte(`{"seq":1,"op":"add","id":"pod-a"}`))
	f.Add([]byte(`{"seq":2,"op":"socket","network":"tcp4"}`))
	f.Add([]byte(`{"seq":3,"op":"start","setup":{"podCIDR":"10.244.7.0/24","clusterCIDR":"10.244.0.0/16","runDir":"/x","mtu":1420}}`))
	f.Fuzz(func(t *testing.T, b []byte) {
		r, err := decodeRequest(b)
		if err != nil {
			return
		}
		again, err := json.Marshal(r)
		if err != nil {
			t.Fatal(err)
		}
		got, err := decodeRequest(again)
		if err != nil || !reflect.DeepEqual(got, r) {
			t.Fatalf("%+v became %+v: %v", r, got, err)
		}
		if r.Op == opAdd && filepath.Dir((setup{RunDir: "/x"}).path(r.ID)) != "/x/netns" {
			t.Fatalf("id %q leaves the directory", r.ID)
		}
	})
}

func FuzzDecodeReply(f *testing.F) {
	f.Add([]byte(`{"seq":1,"pods":[{"id":"pod-a","ip":"10.244.7.2"}],"more":true}`))
	f.Add([]byte(`{"log":{"level":"WARN","text":"x"}}`))
	f.Fuzz(func(t *testing.T, b []byte) {
		r, err := decodeReply(b)
		if err != nil {
			return
		}
		for _, p := range r.Pods {
			if !p.IP.Is4() || checkID(p.ID) != nil {
				t.Fatalf("accepted pod %+v", p)
			}
		}
	})
}

func FuzzControlMessages(f *testing.F) {
	f.Add([]byte{20, 0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0, 9, 0, 0, 0})
	f.Fuzz(func(_ *testing.T, b []byte) { answerFrom(b) })
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
	p, err := identify(os.Getpid())
	if err != nil {
		t.Fatal(err)
	}
	for name, c := range map[string]struct {
		change func(*process)
		want   bool
	}{
		"itself":       {func(*process) {}, true},
		"used again":   {func(p *process) { p.Start++ }, false},
		"another boot": {func(p *process) { p.Boot = "x" }, false},
		"gone":         {func(p *process) { p.PID = 1 << 30 }, false},
	} {
		q := p
		c.change(&q)
		if err := q.save(path); err != nil {
			t.Fatal(err)
		}
		if _, got := loadProcess(path); got != c.want {
			t.Errorf("%s: %v", name, got)
		}
	}
	if err := os.WriteFile(path, []byte("1234"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, ok := loadProcess(path); ok {
		t.Error("a damaged file counts")
	}
}

func TestFamily(t *testing.T) {
	for in, want := range map[[2]string]string{
		{"tcp", "10.0.0.1:80"}: "tcp4", {"udp", "[::1]:53"}: "udp6", {"tcp4", "10.0.0.1:80"}: "tcp4",
		{"tcp", "[::ffff:10.0.0.1]:80"}: "tcp4",
		{"tcp", "localhost:80"}:         "", {"tcp6", "10.0.0.1:80"}: "", {"unix", "10.0.0.1:80"}: "", {"tcp", "10.0.0.1"}: "",
	} {
		if got, err := family(in[0], in[1]); got != want || (err == nil) != (want != "") {
			t.Errorf("family(%q) = %q, %v", in, got, err)
		}
	}
}

func TestMissing(t *testing.T) {
	if got := lastLines([]byte("a\nb\r\n\nc\nd\n")); got != "b; c; d" {
		t.Errorf("lastLines: %q", got)
	}
	if _, err := find("no-such-program-anywhere"); !errors.Is(err, errNotFound) {
		t.Errorf("find: %v", err)
	}
	if path, err := find("sh"); err != nil || !filepath.IsAbs(path) {
		t.Errorf("find(sh) = %s, %v", path, err)
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
