package sim

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/podman-swarm/podman-swarm/internal/hlc"
	"github.com/podman-swarm/podman-swarm/internal/state"
	"github.com/podman-swarm/podman-swarm/internal/state/machine"
)

type opKind int

const (
	opRead   opKind = iota // linearizable
	opPut                  // whatever is there
	opSwap                 // if the value is expected; "" stands for nothing
	opDelete               // if there is anything
)

func (k opKind) String() string { return [...]string{"read", "put", "swap", "delete"}[k] }

type outcome int

const (
	unknown  outcome = iota // it happened, or may yet, or never
	done                    // acknowledged
	conflict                // refused by what is there
	nothing                 // it certainly did not happen
)

func (o outcome) String() string { return [...]string{"unknown", "done", "conflict", "nothing"}[o] }

// op is what a client did. Values are unique, so they stand for the revisions that were expected.
type op struct {
	kind       opKind
	key, value string
	want       string // the value expected by opSwap
	expect     uint64

	node      string
	lineage   string // in which it was acknowledged; empty: the node was changing it
	outcome   outcome
	got       string // what is there, of reads and conflicts
	there     uint64 // its revision, of conflicts
	revision  uint64
	stamp     hlc.Stamp
	err       error
	call, ret int64 // in the order in which things happened
	at        time.Time
}

func (o op) String() string {
	return fmt.Sprintf("%s %s %s %q (expects %q) through %s in %s: %v, there is %q, revision %d, stamp %v, [%d,%d] %v",
		o.at.Format("15:04:05.000"), o.kind, o.key, o.value, o.want, o.node, o.lineage, o.outcome, o.got, o.revision, o.stamp, o.call, o.ret, o.err)
}

// history is everything that clients and watchers of all nodes saw.
type history struct {
	mu       sync.Mutex
	clock    int64
	ops      []op
	events   map[uint64]event // by revision
	views    map[uint64]view
	streams  []*watching
	final    []state.Entry
	last     string // the lineage at the end; empty: nobody looked
	journal  []*machine.Conflict
	lineages map[string]bool
	faults   []string
	// swept says that writes may be gone: a replica that held them alone was wiped.
	swept bool
}

// event is a mutation as watchers see it.
type event struct {
	key, value string
	deleted    bool
	stamp      hlc.Stamp
	node       string
}

func (e event) same(o event) bool { e.node, o.node = "", ""; return e == o }

// view is a state as readers see it.
type view struct{ sum, node string }

// watching is one watch of a node, from its beginning to its end.
type watching struct {
	node, lineage string
	after, upTo   uint64
	revisions     []uint64
	prev          map[string]map[string]string // by clients' key: which value took the place of which
}

func newHistory() *history {
	return &history{events: map[uint64]event{}, views: map[uint64]view{}, lineages: map[string]bool{}}
}

func (h *history) tick() int64 {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.clock++
	return h.clock
}

// fault notes something that must not be.
func (h *history) fault(format string, args ...any) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.faults = append(h.faults, fmt.Sprintf(format, args...))
}

// lineageOf is the lineage that a node reads and writes, empty while it changes it.
func lineageOf(s *state.Store) string {
	if st := s.Status(); !st.Joining {
		return st.Lineage.ID
	}
	return ""
}

// do does what a client does through a node, and notes it.
func (h *history) do(ctx context.Context, n *node, o *op) error {
	l := n.life()
	if l == nil || l.store.Load() == nil {
		return syscall.ECONNREFUSED
	}
	s := l.store.Load()
	o.node, o.at, o.call = n.name, time.Now(), h.tick()
	before := lineageOf(s)
	if o.kind == opRead {
		o.err = s.Barrier(ctx)
		if e, ok := s.View().Get(o.key); o.err == nil && ok {
			o.got, o.revision, o.stamp = string(e.Value), e.ModRevision, e.Stamp
		}
	} else {
		res, err := s.Apply(ctx, state.Write{Key: o.key, Value: []byte(o.value), Delete: o.kind == opDelete, Expect: o.expect})
		o.err, o.revision = err, res.Revision
		if res.Entry != nil {
			o.stamp = res.Entry.Stamp
		}
		if res.Current != nil {
			o.got, o.there = string(res.Current.Value), res.Current.ModRevision
		}
	}
	switch {
	case l.over.Load(): // nobody heard the answer
		o.outcome, o.err = unknown, syscall.ECONNRESET
	case o.err == nil:
		o.outcome = done
	case errors.Is(o.err, state.ErrConflict):
		o.outcome = conflict
	case errors.Is(o.err, state.ErrNoSpace):
		o.outcome = nothing
	}
	if after := lineageOf(s); after == before {
		o.lineage = before
	}
	o.ret = h.tick()
	h.mu.Lock()
	defer h.mu.Unlock()
	h.ops = append(h.ops, *o)
	h.lineages[o.lineage] = true
	return o.err
}

// observe watches the node's replica once it is ready, as clients do, until its life ends.
func (l *life) observe(ctx context.Context) {
	s, h := l.store.Load(), l.n.c.hist
	if s.Ready(ctx) != nil {
		return
	}
	for seen := uint64(0); ctx.Err() == nil; pause(ctx, time.Millisecond) {
		before := lineageOf(s)
		v := s.View()
		w, err := s.Watch(v.Revision())
		if err != nil {
			continue
		}
		x := &watching{node: l.n.name, after: v.Revision(), upTo: v.Revision(), prev: map[string]map[string]string{}}
		if before == lineageOf(s) {
			x.lineage = before
		}
		for err == nil {
			if x.upTo < seen {
				h.fault("%s: revision %d is read after %d", l.n.name, x.upTo, seen)
			}
			seen = x.upTo
			h.look(l, s.View())
			var evs []state.Event
			evs, x.upTo, err = w.Next(ctx, nil)
			if l.over.Load() {
				x.upTo = seen
				break
			}
			h.saw(l, x, evs)
		}
		w.Close()
		if err != nil && !errors.Is(err, state.ErrCompacted) && !errors.Is(err, state.ErrClosed) && ctx.Err() == nil {
			h.fault("%s: a watch ends with %v", l.n.name, err)
		}
		h.mu.Lock()
		h.streams = append(h.streams, x)
		h.mu.Unlock()
	}
}

// saw notes what a watch handed out.
func (h *history) saw(l *life, x *watching, evs []state.Event) {
	h.mu.Lock()
	defer h.mu.Unlock()
	for _, ev := range evs {
		e := event{key: ev.Key, deleted: ev.Entry == nil, node: l.n.name}
		if ev.Entry != nil {
			e.value, e.stamp = string(ev.Entry.Value), ev.Entry.Stamp
		}
		if was, ok := h.events[ev.Revision]; ok && !was.same(e) {
			h.faults = append(h.faults, fmt.Sprintf("revision %d is %+v and %+v", ev.Revision, was, e))
		}
		h.events[ev.Revision] = e
		x.revisions = append(x.revisions, ev.Revision)
		if strings.HasPrefix(ev.Key, podsPrefix) {
			continue
		}
		prev := ""
		if ev.Prev != nil {
			prev = string(ev.Prev.Value)
		}
		if x.prev[e.key] == nil {
			x.prev[e.key] = map[string]string{}
		}
		x.prev[e.key][e.value] = prev
	}
}

// look notes what a revision names.
func (h *history) look(l *life, v state.View) {
	if every := uint64(v.Count("", "")); every > 500 && v.Revision()%(every/2) != 0 { // it takes too long
		return
	}
	sum := sum(v)
	h.mu.Lock()
	defer h.mu.Unlock()
	if was, ok := h.views[v.Revision()]; ok && was.sum != sum && !l.over.Load() {
		h.faults = append(h.faults, fmt.Sprintf("revision %d is one state on %s and another on %s", v.Revision(), was.node, l.n.name))
	}
	h.views[v.Revision()] = view{sum, l.n.name}
}

// sum is a view's content, revisions included.
func sum(v state.View) string {
	hash := sha256.New()
	v.Ascend("", "", func(e *state.Entry) bool {
		_, _ = hash.Write(binary.BigEndian.AppendUint64(e.Append(nil), 0))
		return true
	})
	return hex.EncodeToString(hash.Sum(nil)[:8])
}

// fingerprint is a replica's export.
func fingerprint(s *state.Store) (string, error) {
	var b bytes.Buffer
	if err := s.Export(&b); err != nil {
		return "", err
	}
	// How far a replica has read its log is its own business, and so is the sum over that.
	const applied, trailer = len("psw-export") + 1 + len("psw-state") + 1 + 8, 8
	body := b.Bytes()[:b.Len()-trailer]
	clear(body[applied : applied+8])
	hash := sha256.Sum256(body)
	return fmt.Sprint(s.Revision(), " ", hex.EncodeToString(hash[:8])), nil
}

// end notes what is left when all is over.
func (h *history) end(s *state.Store) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.final, h.journal, h.last = nil, nil, s.Status().Lineage.ID
	v := s.View()
	v.Ascend("", "", func(e *state.Entry) bool {
		h.final = append(h.final, *e)
		return true
	})
	for c, err := range machine.Conflicts(v) {
		if err != nil {
			h.faults = append(h.faults, err.Error())
			continue
		}
		h.journal = append(h.journal, c)
	}
}

// judge says what must be true of every history.
func (h *history) judge(t *testing.T) {
	t.Helper()
	for _, f := range h.faults {
		t.Error(f)
	}
	h.judgeWatches(t)
	h.judgeKeys(t)
	h.judgeEnd(t)
}
