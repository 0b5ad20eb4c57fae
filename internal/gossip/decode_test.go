package gossip

import (
	"bytes"
	"fmt"
	"log"
	"log/slog"
	"net"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/hashicorp/memberlist"
)

func FuzzDecodeMeta(f *testing.F) {
	f.Add([]byte(nil))
	f.Add([]byte{0})
	f.Add([]byte{0xff, 1, 2})
	f.Fuzz(func(t *testing.T, b []byte) {
		meta, leaving := decodeMeta(b)
		again, stays := decodeMeta(encodeMeta(meta, leaving))
		if !bytes.Equal(meta, again) || leaving != stays {
			t.Errorf("%x: %x %v, then %x %v", b, meta, leaving, again, stays)
		}
	})
}

// FuzzNews feeds the book what a holder of the key could make up.
func FuzzNews(f *testing.F) {
	f.Add("peer", []byte{10, 0, 0, 1}, uint16(7946), []byte{0, 1})
	f.Add("", []byte(nil), uint16(0), []byte(nil))
	f.Add("v6", []byte(net.IPv6loopback), uint16(1), []byte{1})
	f.Fuzz(func(t *testing.T, name string, ip []byte, port uint16, meta []byte) {
		b := newBook("self", nil, slog.New(slog.DiscardHandler))
		n := &memberlist.Node{Name: name, Addr: ip, Port: port, Meta: meta}
		if b.NotifyAlive(n) != nil {
			return
		}
		b.NotifyJoin(n)
		ms := b.list()
		if len(ms) != 1 || ms[0].State != Alive {
			t.Fatalf("%v", ms)
		}
		if _, err := resolve(t.Context(), ms[0].Addr); err != nil {
			t.Errorf("an address that nobody can use: %v", err)
		}
		b.NotifyLeave(n)
		if want := map[bool]State{true: Left, false: Dead}[len(meta) > 0 && meta[0]&1 != 0]; b.list()[0].State != want {
			t.Errorf("%v, want %v", b.list()[0].State, want)
		}
	})
}

func FuzzText(f *testing.F) {
	f.Add("[ERR] memberlist: Failed to send ack: x")
	f.Add("[")
	f.Add("Err: Could not set the deadline")
	f.Fuzz(func(t *testing.T, line string) {
		if got := text([]byte(line)); !strings.Contains(line, got) {
			t.Errorf("%q became %q", line, got)
		}
	})
}

// TestLog says what matters, and says it once in a while only.
func TestLog(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var out bytes.Buffer
		l := log.New(newBridge(slog.New(slog.NewTextHandler(&out, nil))), "", 0)
		l.Print("[ERR] memberlist: Failed to send UDP ping: no route to host")
		l.Print("[WARN] memberlist: Refuting a suspect message (from: b)")
		if out.Len() > 0 {
			t.Errorf("noise: %s", out.String())
		}
		for i := range 1000 {
			l.Printf("[ERR] memberlist: Decrypt packet failed: no installed keys could decrypt the message from=10.0.0.%d:7946", i%250)
		}
		pause(sayEvery)
		l.Print("[ERR] memberlist: Decrypt packet failed: again")
		if got := strings.Count(out.String(), "level=WARN msg=memberlist says=\"Decrypt packet failed"); got != 2 {
			t.Errorf("said %d times:\n%s", got, out.String())
		}
	})
}

// TestIdleTraffic measures what a cluster in which nothing happens sends.
func TestIdleTraffic(t *testing.T) {
	for _, tt := range []struct {
		n              int
		packets, bytes float64 // a second and member, at most
	}{{3, 5, 1500}, {10, 5, 2000}, {50, 5, 4000}} {
		t.Run(fmt.Sprint(tt.n), func(t *testing.T) {
			inCluster(t, tt.n, 0, func(c *cluster) {
				t := c.t
				for i, x := range c.all {
					if err := x.SetMeta(bytes.Repeat([]byte{byte(i)}, 200)); err != nil {
						t.Fatal(err)
					}
				}
				pause(10 * time.Second)
				c.net.Traffic()
				const span = time.Minute
				pause(span)
				packets, size := c.net.Traffic()
				per := func(x int) float64 { return float64(x) / span.Seconds() / float64(tt.n) }
				t.Logf("%d idle members: %.1f packets/s and %.0f bytes/s sent by each, streams included", tt.n, per(packets), per(size))
				if per(packets) > tt.packets || per(size) > tt.bytes || packets == 0 {
					t.Errorf("more than %.0f packets/s or %.0f bytes/s", tt.packets, tt.bytes)
				}
			})
		})
	}
}
