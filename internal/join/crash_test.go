package join

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/podman-swarm/podman-swarm/internal/pki"
	"github.com/podman-swarm/podman-swarm/internal/state"
)

// cut is a connection that breaks after so many calls of Read and Write together.
type cut struct {
	net.Conn
	below net.Conn
	left  *atomic.Int64
}

func (c cut) spend() error {
	if c.left.Add(-1) < 0 {
		c.below.Close()
		return net.ErrClosed
	}
	return nil
}

func (c cut) Read(b []byte) (int, error) {
	if err := c.spend(); err != nil {
		return 0, err
	}
	return c.Conn.Read(b)
}

func (c cut) Write(b []byte) (int, error) {
	if err := c.spend(); err != nil {
		return 0, err
	}
	return c.Conn.Write(b)
}

// Wherever the connection breaks, both sides have nothing, or the newcomer comes again and is one
// node that used one use.
func TestInterrupted(t *testing.T) {
	c := newCluster(t)
	for k := range 12 {
		t.Run(fmt.Sprint(k), func(t *testing.T) {
			t.Parallel()
			token := c.token(time.Hour, 1)
			n := c.newcomer(fmt.Sprintf("n-%d", k), token)
			whole := n.Dial
			n.Dial = c.dialTo(c.Admitter, func(conn, below net.Conn) net.Conn {
				left := &atomic.Int64{}
				left.Store(int64(k))
				return cut{conn, below, left}
			})
			_, err := Join(t.Context(), n)
			if err == nil {
				if k < 6 {
					t.Fatalf("joined with %d calls", k)
				}
				return
			}
			if left, err := os.ReadDir(filepath.Dir(n.Dir)); err != nil || len(left) != 0 {
				t.Errorf("left on the newcomer: %v, %v", left, err)
			}
			eventually(t, func() bool { // the node notices a little later
				e, ok := c.store.View().Get(NodesPrefix + n.Name)
				return !ok || e.Expires == 0
			})
			if _, ok := c.store.View().Get(NodesPrefix + n.Name); ok && c.uses(token.ID) != 1 || !ok && c.uses(token.ID) != 0 {
				t.Errorf("record: %v, uses %d", ok, c.uses(token.ID))
			}
			n.Dial = whole
			if _, err := Join(t.Context(), n); err != nil || c.uses(token.ID) != 1 {
				t.Errorf("the second time: %v, %d uses", err, c.uses(token.ID))
			}
		})
	}
}

func eventually(t *testing.T, ok func() bool) {
	t.Helper()
	tick := time.NewTicker(time.Millisecond)
	defer tick.Stop()
	end := time.After(10 * time.Second)
	for !ok() {
		select {
		case <-tick.C:
		case <-end:
			t.Fatal("not within 10 seconds")
		}
	}
}

// dying is a store whose node loses power after so many writes: no later one happens.
type dying struct {
	*state.Store
	left atomic.Int64
	// heard tells whether the last write happened all the same.
	heard bool
}

var errDied = errors.New("power failure")

func (d *dying) Apply(ctx context.Context, w state.Write) (state.Result, error) {
	switch left := d.left.Add(-1); {
	case left > 0:
		return d.Store.Apply(ctx, w)
	case left == 0 && d.heard:
		_, _ = d.Store.Apply(ctx, w)
	}
	return state.Result{}, errDied
}

// Whenever the node dies, what it leaves expires, and the newcomer can join through another.
func TestNodeDies(t *testing.T) {
	c := newCluster(t)
	for writes := 1; writes <= 3; writes++ {
		for _, heard := range []bool{false, true} {
			t.Run(fmt.Sprintf("write %d happened %v", writes, heard), func(t *testing.T) {
				token := c.token(time.Hour, 1)
				n := c.newcomer(fmt.Sprintf("n-%d-%v", writes, heard), token)
				whole := n.Dial
				d := &dying{Store: c.store, heard: heard}
				d.left.Store(int64(writes))
				n.Dial = c.dialTo(c.admitter(d), nil)
				ctx, cancel := context.WithTimeout(t.Context(), 500*time.Millisecond) // one round is enough
				defer cancel()
				if _, err := Join(ctx, n); err == nil {
					t.Fatal("joined through a dead node")
				}
				c.wg.Wait()
				if left, err := os.ReadDir(filepath.Dir(n.Dir)); err != nil || len(left) != 0 {
					t.Errorf("left on the newcomer: %v, %v", left, err)
				}
				e, ok := c.store.View().Get(NodesPrefix + n.Name)
				confirmed := writes == 3 && heard
				if ok && (e.Expires == 0) != confirmed {
					t.Errorf("left in the store for good: %s", e.Value)
				}
				if expect := writes > 1 || heard; ok != expect {
					t.Errorf("record: %v, want %v", ok, expect)
				}
				if ok && !confirmed {
					other := c.newcomer(n.Name, c.token(time.Hour, 1)) // another machine by that name
					if _, err := Join(t.Context(), other); reason(err) != NameTaken {
						t.Errorf("another machine: %v", err)
					}
				}
				n.Dial = whole
				if _, err := Join(t.Context(), n); err != nil || c.uses(token.ID) != 1 {
					t.Errorf("the second time: %v, %d uses", err, c.uses(token.ID))
				}
			})
		}
	}
}

// A record that expired, or was taken over by a second try, is not confirmed any more.
func TestConfirmTooLate(t *testing.T) {
	c := newCluster(t)
	token := c.token(time.Hour, 1)
	n := c.newcomer("n2", token)
	n.Dial = c.dialTo(c.Admitter, func(conn, _ net.Conn) net.Conn {
		return &slow{Conn: conn, before: func() {
			e, _ := c.store.View().Get(NodesPrefix + "n2")
			if e != nil {
				_, _ = c.store.Apply(t.Context(), state.Write{Key: e.Key, Delete: true, Expect: e.ModRevision})
			}
		}}
	})
	_, err := Join(t.Context(), n)
	if err == nil {
		t.Fatal("confirmed a record that was gone")
	}
	c.nothing(n, token.ID, 0)
}

// slow does something before the second message.
type slow struct {
	net.Conn
	writes int
	before func()
}

func (s *slow) Write(b []byte) (int, error) {
	if s.writes++; s.writes == 2 {
		s.before()
	}
	return s.Conn.Write(b)
}

// Many newcomers at the same time, some of whom give up, through several nodes: no two nodes have
// the same addresses, no token is used too often.
func TestConcurrentJoins(t *testing.T) {
	c := newCluster(t)
	nodes := []*Admitter{c.Admitter, c.admitter(c.store), c.admitter(c.store)}
	open, limited := c.token(time.Hour, 0), c.token(time.Hour, 3)
	var wg sync.WaitGroup
	var byLimited atomic.Int64
	for i := range 40 {
		token := open
		if i%4 == 0 {
			token = limited
		}
		n := c.newcomer(fmt.Sprintf("w%d", i), token)
		var wrap func(conn, below net.Conn) net.Conn
		if i%5 == 1 {
			wrap = func(conn, below net.Conn) net.Conn { // gives up in the middle
				left := &atomic.Int64{}
				left.Store(2)
				return cut{conn, below, left}
			}
		}
		if i%8 == 2 {
			n.PodCIDR = netip.PrefixFrom(netip.AddrFrom4([4]byte{10, 244, byte(i), 0}), 24)
		}
		n.Dial = c.dialTo(nodes[i%len(nodes)], wrap)
		wg.Go(func() {
			adm, err := Join(t.Context(), n)
			r := reason(err)
			switch {
			case err == nil && token == limited:
				byLimited.Add(1)
			case err != nil && r != UsedUp && r != NoRange && wrap == nil:
				t.Errorf("%s: %v", n.Name, err)
			}
			if err == nil {
				if _, err := pki.Open(n.Dir); err != nil {
					t.Error(err)
				}
				e, ok := c.store.View().Get(NodesPrefix + n.Name)
				if !ok {
					t.Errorf("%s has no record", n.Name)
				} else if r, err := decodeNode(e); err != nil || r.PodCIDR != adm.PodCIDR || !r.Confirmed {
					t.Errorf("%s has %v, was told %v", n.Name, r.PodCIDR, adm.PodCIDR)
				}
			}
		})
	}
	wg.Wait()
	c.wg.Wait()
	all := records(c.store.View())
	for i, x := range all {
		if !x.Confirmed {
			t.Errorf("%s was left behind", x.Name)
		}
		for _, y := range all[:i] {
			if x.PodCIDR.Overlaps(y.PodCIDR) {
				t.Errorf("%s and %s both have %s", x.Name, y.Name, x.PodCIDR)
			}
		}
	}
	if got := byLimited.Load(); got < 1 || got > 3 || c.uses(limited.ID) != int(got) {
		t.Errorf("the limited token admitted %d, counts %d, may 3", got, c.uses(limited.ID))
	}
	if len(all) < 20 {
		t.Errorf("only %d nodes", len(all))
	}
}

func TestRangesRunOut(t *testing.T) {
	c := newCluster(t)
	a := c.admitter(c.store)
	a.nodes.pods = netip.MustParsePrefix("10.244.0.0/23")
	token := c.token(time.Hour, 0)
	for i, want := range []Reason{"", NoRange} {
		n := c.newcomer(fmt.Sprintf("n-%d", i), token)
		n.Dial = c.dialTo(a, nil)
		if _, err := Join(t.Context(), n); reason(err) != want || (err == nil) != (want == "") {
			t.Errorf("newcomer %d: %v", i, err)
		}
	}
	top := &registry{pods: netip.MustParsePrefix("255.255.255.0/24")}
	if p, refusal := top.free(state.View{}, claim{}); refusal != nil || p != top.pods {
		t.Errorf("got %v, %v", p, refusal)
	}
}
