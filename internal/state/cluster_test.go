package state

import (
	"context"
	"errors"
	"fmt"
	"net"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/hashicorp/raft"

	"github.com/podman-swarm/podman-swarm/internal/state/lab"
	"github.com/podman-swarm/podman-swarm/internal/state/statetest"
)

// cluster is three replicas in one process, on real connections.
type cluster struct {
	t       *testing.T
	tune    func(*raft.Config)
	segment int64
	dirs    []string
	net     *statetest.Net
	lineage string

	mu     sync.Mutex
	stores map[string]*Store // by name
	ports  map[string]string // by name and lineage
	hung   hung
}

// loopback is a node whose streams are real; the other seams are statetest's.
type loopback struct {
	*statetest.Node
	c *cluster
}

func (n loopback) Listen(lineage string) (net.Listener, error) {
	l, err := (&net.ListenConfig{}).Listen(context.Background(), "tcp", "127.0.0.1:0")
	if err == nil {
		n.c.mu.Lock()
		defer n.c.mu.Unlock()
		n.c.ports[statetest.Addr(n.Name)+lineage] = l.Addr().String()
	}
	return l, err
}

func (n loopback) Dial(ctx context.Context, addr, lineage string) (net.Conn, error) {
	n.c.mu.Lock()
	at := n.c.ports[addr+lineage]
	n.c.mu.Unlock()
	return (&net.Dialer{}).DialContext(ctx, "tcp", at)
}

func newCluster(t *testing.T, tune func(*raft.Config)) *cluster {
	t.Helper()
	c := &cluster{t: t, tune: tune, net: statetest.New(), stores: map[string]*Store{}, ports: map[string]string{}, segment: 4 << 10}
	t.Cleanup(func() {
		for i := range c.dirs {
			c.stop(i)
		}
	})
	for i := range 3 {
		c.dirs = append(c.dirs, t.TempDir())
		s := c.start(i)
		if i == 0 {
			c.lineage = s.Status().Lineage.ID
		}
	}
	c.leader()
	return c
}

func name(i int) string { return fmt.Sprint("n", i) }

func (c *cluster) start(i int) *Store {
	c.t.Helper()
	node := loopback{c.net.Start(context.WithoutCancel(c.t.Context()), name(i), func(ctx context.Context, request []byte) []byte {
		if s := c.store(i); s != nil {
			return s.Serve(ctx, request)
		}
		return nil
	}), c}
	s, err := tryOpen(c.t, Config{
		Dir: c.dirs[i], NodeID: name(i), Addr: statetest.Addr(name(i)), Network: node, Membership: node,
		Join: c.lineage, tune: c.tune, Lab: lab.Lab{Segment: c.segment, Disk: c.hung.probe},
	})
	if err != nil {
		c.t.Fatal(err)
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.stores[name(i)] = s
	return s
}

func (c *cluster) stop(i int) {
	c.t.Helper()
	c.mu.Lock()
	s := c.stores[name(i)]
	delete(c.stores, name(i))
	c.mu.Unlock()
	if s != nil {
		if err := s.Close(); err != nil {
			c.t.Error(err)
		}
		c.net.Kill(name(i))
	}
}

func (c *cluster) store(i int) *Store {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.stores[name(i)]
}

// leader returns the index of the replica that leads, once one does and all that run have a vote.
func (c *cluster) leader() int {
	c.t.Helper()
	ctx, cancel := context.WithTimeout(c.t.Context(), 20*time.Second)
	defer cancel()
	for ctx.Err() == nil {
		for i := range c.dirs {
			if s := c.store(i); s != nil && s.instance().Leads() && c.allVote(s.instance().Voters()) {
				return i
			}
		}
		pause(ctx, 5*time.Millisecond)
	}
	c.t.Fatal("nobody leads")
	return -1
}

// allVote tells whether all that run are among the voters.
func (c *cluster) allVote(voters []string) bool {
	for i := range c.dirs {
		if s := c.store(i); s != nil && !slices.Contains(voters, string(s.instance().Self)) {
			return false
		}
	}
	return true
}

func pause(ctx context.Context, d time.Duration) {
	select {
	case <-time.After(d):
	case <-ctx.Done():
	}
}

// equal fails unless all running replicas come to the same state.
func (c *cluster) equal(rev uint64) {
	c.t.Helper()
	ctx, cancel := context.WithTimeout(c.t.Context(), 20*time.Second)
	defer cancel()
	var want []Entry
	for i := range c.dirs {
		s := c.store(i)
		if s == nil {
			continue
		}
		if err := s.WaitRevision(ctx, rev); err != nil {
			c.t.Fatalf("replica %d does not reach revision %d: %v", i, rev, err)
		}
		v, err := s.ViewAt(rev)
		if err != nil {
			c.t.Fatalf("replica %d: %v", i, err)
		}
		got := listView(v, "", "")
		if want == nil {
			want = got
		}
		if diff := cmp.Diff(want, got, emptyIsNil); diff != "" {
			c.t.Fatalf("replica %d differs: %s", i, diff)
		}
	}
}

func TestWriteOnFollower(t *testing.T) {
	c := newCluster(t, nil)
	l := c.leader()
	f := c.store((l + 1) % 3)
	res := put(t, f, "/a", "1")
	if value(f, "/a") != "1" || res.Entry == nil || res.Entry.ModRevision != res.Revision {
		t.Fatalf("not applied on the follower that acknowledged it: %+v", res)
	}
	res2, err := f.Apply(t.Context(), Write{Key: "/a", Value: []byte("2"), Expect: 99})
	if !errors.Is(err, ErrConflict) || res2.Current == nil || string(res2.Current.Value) != "1" {
		t.Fatalf("conflict through a follower: %+v, %v", res2, err)
	}
	if _, err := f.Apply(t.Context(), Write{Key: "/a", Delete: true, Expect: res.Revision}); err != nil {
		t.Fatal(err)
	}
	put(t, f, "/ttl", "x")
	res, err = f.Apply(t.Context(), Write{Key: "/ttl", Expect: Any, TTL: 3600})
	if err != nil || res.Entry.Expires < time.Now().Unix()+3000 {
		t.Fatalf("TTL through a follower: %+v, %v", res.Entry, err)
	}
	c.equal(res.Revision)
}

// What was acknowledged anywhere can be read anywhere after a barrier.
func TestBarrierOnFollower(t *testing.T) {
	c := newCluster(t, nil)
	l := c.leader()
	for i := range 50 {
		val := fmt.Sprint(i)
		put(t, c.store((l+i)%3), "/a", val)
		f := c.store((l + i + 1) % 3)
		var wg sync.WaitGroup
		for range 4 {
			wg.Go(func() {
				if err := f.Barrier(t.Context()); err != nil {
					t.Error(err)
				}
				if got := value(f, "/a"); got != val {
					t.Errorf("after a barrier %q is read, %q was acknowledged", got, val)
				}
			})
		}
		wg.Wait()
	}
}

// A follower learns of an isolated write at once, not with Raft's next tick.
func TestNudge(t *testing.T) {
	c := newCluster(t, nil)
	l := c.leader()
	put(t, c.store(l), "/a", "0")
	quick := 0
	for i := range 20 {
		res := put(t, c.store(l), "/a", fmt.Sprint(i))
		start := time.Now()
		if err := c.store((l+1)%3).WaitRevision(t.Context(), res.Revision); err != nil {
			t.Fatal(err)
		}
		if time.Since(start) < 25*time.Millisecond {
			quick++
		}
	}
	if quick < 10 {
		t.Errorf("only %d of 20 writes were seen at once", quick)
	}
}

// Followers are told of what is committed: none waits for Raft's tick, which is a minute here.
func TestNobodyWaitsForTheTick(t *testing.T) {
	c := newCluster(t, func(r *raft.Config) { r.CommitTimeout = time.Minute })
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	l := c.leader()
	follower := (l + 1) % 3
	put(t, c.store(l), "/a", "1")
	res, err := c.store(l).Apply(ctx, Write{Key: "/soon", TTL: 1})
	if err != nil {
		t.Fatal(err)
	}
	if err := c.store(follower).WaitRevision(ctx, res.Revision+1); err != nil {
		t.Errorf("the end of a key's time: %v", err)
	}
	c.stop(follower) // nothing is written meanwhile: after its start it has all, and does not know
	if err := c.start(follower).Ready(ctx); err != nil {
		t.Errorf("a start: %v", err)
	}
	put(t, c.store(l), "/a", "2")
	c.stop(l)
	next := c.leader()
	for i := range c.dirs {
		if i == next || i == l {
			continue
		}
		if err := c.store(i).Barrier(ctx); err != nil {
			t.Errorf("another leader: %v", err)
		}
		if got := value(c.store(i), "/a"); got != "2" {
			t.Errorf("after another leader's election %q is read", got)
		}
	}
}

// Writers go on while the leader is stopped again and again; nothing acknowledged is lost and each
// revision is given to one write.
func TestLeaderLoss(t *testing.T) {
	c := newCluster(t, nil)
	c.leader()
	ctx, cancel := context.WithCancel(t.Context())
	var mu sync.Mutex
	acked := map[uint64]string{}
	var wg sync.WaitGroup
	for w := range 4 {
		wg.Go(func() {
			for i := 0; ctx.Err() == nil; i++ {
				s := c.store((w + i) % 3)
				if s == nil {
					pause(ctx, time.Millisecond)
					continue
				}
				key := fmt.Sprintf("/%d/%d", w, i)
				res, err := s.Apply(ctx, Write{Key: key, Value: []byte(key)})
				if err != nil {
					continue
				}
				mu.Lock()
				if other, ok := acked[res.Revision]; ok {
					t.Errorf("revision %d was given to %s and %s", res.Revision, other, key)
				}
				acked[res.Revision] = key
				mu.Unlock()
				pause(ctx, time.Millisecond)
			}
		})
	}
	for round := range 3 {
		l := c.leader()
		pause(ctx, 100*time.Millisecond)
		start := time.Now()
		if round == 1 { // gone without handing over
			if err := c.store(l).instance().Stop(); err != nil {
				t.Error(err)
			}
		}
		c.stop(l)
		c.leader()
		t.Logf("next leader after %v", time.Since(start).Round(time.Millisecond))
		pause(ctx, 100*time.Millisecond)
		c.start(l)
	}
	cancel()
	wg.Wait()
	l := c.store(c.leader())
	res := put(t, l, "/end", "")
	c.equal(res.Revision)
	v := l.View()
	for rev, key := range acked {
		if e, ok := v.Get(key); !ok || e.ModRevision != rev {
			t.Errorf("%s, acknowledged at revision %d, is %+v", key, rev, e)
		}
	}
	if len(acked) < 50 {
		t.Errorf("only %d writes", len(acked))
	}
}

// A replica that was away for longer than the log reaches back gets a snapshot; its watches are
// told ErrCompacted.
func TestCatchUpBySnapshot(t *testing.T) {
	c := newCluster(t, func(c *raft.Config) {
		c.SnapshotThreshold, c.TrailingLogs, c.SnapshotInterval = 50, 5, 10*time.Millisecond
	})
	l := c.leader()
	away := (l + 1) % 3
	put(t, c.store(l), "/a", "1")
	c.stop(away)
	var last Result
	for i := range 300 {
		last = put(t, c.store(l), fmt.Sprintf("/k/%d", i%20), fmt.Sprint(i))
	}
	logs := c.store(l).instance().Stores.Logs
	for first := uint64(0); first < 50; first, _ = logs.FirstIndex() {
		if t.Context().Err() != nil {
			t.Fatal("the log is never cut")
		}
		last = put(t, c.store(l), "/more", "")
	}
	s := c.start(away)
	w, err := s.Watch(s.Revision())
	if err != nil {
		t.Fatal(err)
	}
	defer w.Close()
	if err := s.WaitRevision(t.Context(), last.Revision); err != nil {
		t.Fatal(err)
	}
	if _, _, err := w.Next(t.Context(), nil); !errors.Is(err, ErrCompacted) {
		t.Errorf("watch across a snapshot: %v, want ErrCompacted", err)
	}
	c.equal(last.Revision)
	// And it is a full replica again, also after a restart.
	c.stop(away)
	c.start(away)
	last = put(t, c.store(away), "/end", "")
	c.equal(last.Revision)
}

func TestNoMajority(t *testing.T) {
	c := newCluster(t, nil)
	l := c.leader()
	put(t, c.store(l), "/a", "1")
	c.stop((l + 1) % 3)
	c.stop((l + 2) % 3)
	ctx, cancel := context.WithTimeout(t.Context(), 300*time.Millisecond)
	defer cancel()
	if _, err := c.store(l).Apply(ctx, Write{Key: "/b"}); err == nil {
		t.Error("a write without a majority was acknowledged")
	}
	if err := c.store(l).Barrier(ctx); err == nil {
		t.Error("a barrier without a majority succeeded")
	}
	if got := value(c.store(l), "/a"); got != "1" {
		t.Errorf("reading from local memory gives %q", got)
	}
}
