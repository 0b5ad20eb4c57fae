package state

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/hashicorp/raft"
	"pgregory.net/rapid"

	"github.com/podman-swarm/podman-swarm/internal/hlc"
)

// model is the store as a child would write it: maps, and every state kept for ever.
type model struct {
	now    map[string]Entry
	states map[uint64]map[string]Entry // by revision
	events []Event
	rev    uint64
	stamp  hlc.Stamp
}

func newModel() *model {
	return &model{now: map[string]Entry{}, states: map[uint64]map[string]Entry{1: {}}, rev: 1}
}

// apply returns whether the command's expectation was met.
func (m *model) apply(c command) bool {
	cur, exists := m.now[c.key]
	if c.op == opDelete && !exists || c.expect != Any && c.expect != cur.ModRevision {
		return false
	}
	m.rev++
	m.stamp = max(m.stamp+1, c.stamp)
	ev := Event{Revision: m.rev, Key: c.key}
	if exists {
		prev := cur
		ev.Prev = &prev
	}
	if c.op == opDelete {
		delete(m.now, c.key)
	} else {
		e := Entry{Key: c.key, Value: c.value, CreateRevision: m.rev, ModRevision: m.rev, Stamp: m.stamp, Expires: c.expires}
		if exists {
			e.CreateRevision = cur.CreateRevision
		}
		m.now[c.key] = e
		ev.Entry = &e
	}
	m.events = append(m.events, ev)
	m.states[m.rev] = maps.Clone(m.now)
	return true
}

// list is what a view of a state must show of [from, end).
func list(state map[string]Entry, from, end string) []Entry {
	var out []Entry
	for _, k := range slices.Sorted(maps.Keys(state)) {
		if k >= from && (end == "" || k < end) {
			out = append(out, state[k])
		}
	}
	return out
}

func listView(v View, from, end string) []Entry {
	var out []Entry
	v.Ascend(from, end, func(e *Entry) bool { out = append(out, *e); return true })
	return out
}

var keys = rapid.SampledFrom([]string{"/a", "/a/1", "/a/2", "/a/2/x", "/b", "/b/1", "/c/1", "/c/2", "/c/3"})

// machine drives a state machine and its model.
type machine struct {
	f       *fsm
	m       *model
	index   uint64
	watches []*modelWatch
	trimmed uint64
}

type modelWatch struct {
	w      *Watch
	prefix string
	upTo   uint64
	// missed is the oldest matching event not handed out; 0: none.
}

func (x *machine) command(t *rapid.T) {
	c := command{
		op: opPut, stamp: hlc.Stamp(rapid.Uint64Range(0, 1000).Draw(t, "stamp")), key: keys.Draw(t, "key"),
		expect: Any,
	}
	if rapid.Bool().Draw(t, "delete") {
		c.op = opDelete
	} else {
		c.value = rapid.SliceOfN(rapid.Byte(), 0, 8).Draw(t, "value")
		c.expires = rapid.Int64Range(0, 3).Draw(t, "expires")
	}
	switch rapid.IntRange(0, 3).Draw(t, "expect") {
	case 0:
		c.expect = 0
	case 1:
		c.expect = x.m.now[c.key].ModRevision
	case 2:
		c.expect = rapid.Uint64Range(0, x.m.rev).Draw(t, "rev")
	}
	x.index++
	cur, exists := x.m.now[c.key]
	met := x.m.apply(c)
	out := x.f.Apply(&raft.Log{Index: x.index, Data: c.encode(nil)}).(*outcome) //nolint:errcheck // it is
	switch {
	case met != (out.err == nil):
		t.Fatalf("%+v: %v, want success %v", c, out.err, met)
	case !met && (!errors.Is(out.err, ErrConflict) || exists != (out.result.Current != nil) ||
		exists && !cmp.Equal(*out.result.Current, cur, emptyIsNil)):
		t.Fatalf("%+v: conflict with %+v, want %+v", c, out.result.Current, cur)
	case met && out.result.Revision != x.m.rev:
		t.Fatalf("%+v: revision %d, want %d", c, out.result.Revision, x.m.rev)
	case met && c.op == opDelete && !cmp.Equal(*out.result.Entry, cur, emptyIsNil):
		t.Fatalf("%+v: removed %+v, want %+v", c, out.result.Entry, cur)
	}
}

var emptyIsNil = cmp.Comparer(func(a, b []byte) bool { return bytes.Equal(a, b) })

func (x *machine) view(t *rapid.T) {
	rev := rapid.Uint64Range(0, x.m.rev+1).Draw(t, "rev")
	from, end := keys.Draw(t, "from"), rapid.SampledFrom([]string{"", "/a/2", "/c/2", "/z"}).Draw(t, "end")
	v, err := x.f.viewAt(rev)
	switch {
	case rev > x.m.rev:
		if !errors.Is(err, ErrFuture) {
			t.Fatalf("view at %d: %v, want ErrFuture", rev, err)
		}
	case rev < x.f.hist.base:
		if !errors.Is(err, ErrCompacted) {
			t.Fatalf("view at %d: %v, want ErrCompacted", rev, err)
		}
	case err != nil:
		t.Fatalf("view at %d: %v", rev, err)
	default:
		want := list(x.m.states[rev], from, end)
		if diff := cmp.Diff(want, listView(v, from, end), emptyIsNil); diff != "" || v.Revision() != rev {
			t.Fatalf("view at %d is of %d: %s", rev, v.Revision(), diff)
		}
		if n := v.Count(from, end); n != len(want) {
			t.Fatalf("view at %d counts %d, want %d", rev, n, len(want))
		}
	}
}

func (x *machine) watch(t *rapid.T) {
	after := rapid.Uint64Range(0, x.m.rev+1).Draw(t, "after")
	prefix := rapid.SampledFrom([]string{"", "/a", "/a/", "/c/", "/nothing"}).Draw(t, "prefix")
	w, err := x.f.watch(prefix, after)
	switch {
	case after > x.m.rev:
		if !errors.Is(err, ErrFuture) {
			t.Fatalf("watch after %d: %v, want ErrFuture", after, err)
		}
	case after < x.f.hist.base:
		if !errors.Is(err, ErrCompacted) {
			t.Fatalf("watch after %d: %v, want ErrCompacted", after, err)
		}
	case err != nil:
		t.Fatal(err)
	default:
		x.watches = append(x.watches, &modelWatch{w: w, prefix: prefix, upTo: after})
	}
}

// next reads from a random watch: exactly the matching events, in order, or ErrCompacted and then
// really something was missed.
func (x *machine) next(t *rapid.T) {
	if len(x.watches) == 0 {
		t.Skip()
	}
	i := rapid.IntRange(0, len(x.watches)-1).Draw(t, "watch")
	w := x.watches[i]
	ended, cancel := context.WithCancel(context.Background())
	cancel()
	evs, upTo, err := w.w.Next(ended, make([]Event, 0, rapid.IntRange(1, 3).Draw(t, "limit")))
	if errors.Is(err, ErrCompacted) {
		lost := slices.ContainsFunc(x.m.events, func(ev Event) bool {
			return ev.Revision > w.upTo && ev.Revision <= x.f.hist.base
		})
		if !lost {
			t.Fatalf("watch of %q up to %d is told ErrCompacted, history begins at %d", w.prefix, w.upTo, x.f.hist.base)
		}
		w.w.Close()
		x.watches = slices.Delete(x.watches, i, i+1)
		return
	}
	if err != nil && !errors.Is(err, context.Canceled) || upTo < w.upTo || upTo > x.m.rev {
		t.Fatalf("watch of %q up to %d: now %d, %v", w.prefix, w.upTo, upTo, err)
	}
	var want []Event
	for _, ev := range x.m.events {
		if ev.Revision > w.upTo && ev.Revision <= upTo && strings.HasPrefix(ev.Key, w.prefix) {
			want = append(want, ev)
		}
	}
	if diff := cmp.Diff(want, append([]Event(nil), evs...), emptyIsNil); diff != "" {
		t.Fatalf("watch of %q from %d to %d: %s", w.prefix, w.upTo, upTo, diff)
	}
	w.upTo = upTo
}

func (x *machine) check(t *rapid.T) {
	v := x.f.view()
	if diff := cmp.Diff(list(x.m.now, "", ""), listView(v, "", ""), emptyIsNil); diff != "" {
		t.Fatalf("the store differs from the model: %s", diff)
	}
	if v.Revision() != x.m.rev {
		t.Fatalf("revision %d, want %d", v.Revision(), x.m.rev)
	}
	if x.f.hist.last() != x.m.rev {
		t.Fatalf("history ends at %d, want %d", x.f.hist.last(), x.m.rev)
	}
	var expire []Entry
	for _, e := range x.m.now {
		if e.Expires > 0 && e.Expires <= 2 {
			expire = append(expire, e)
		}
	}
	if due, _ := x.f.due(2, 100); len(due) != len(expire) {
		t.Fatalf("%d entries are due, want %d", len(due), len(expire))
	}
}

// snapshot copies the state through a snapshot: the copy is equal, and equal again after the same
// commands.
func (x *machine) snapshot(t *rapid.T) {
	fresh := newFSM(quiet(), Retention{Age: time.Minute, Events: 8})
	snap, err := x.f.Snapshot()
	if err != nil {
		t.Fatal(err)
	}
	var b bytes.Buffer
	if err := snap.(*image).write(&b); err != nil {
		t.Fatal(err)
	}
	if err := fresh.Restore(io.NopCloser(&b)); err != nil {
		t.Fatal(err)
	}
	if rapid.Bool().Draw(t, "restart") {
		x.f = fresh
		x.watches = nil
		return
	}
	c := command{op: opPut, expect: Any, key: "/a", stamp: 5, value: []byte("both")}
	x.index++
	x.m.apply(c)
	l := &raft.Log{Index: x.index, Data: c.encode(nil)}
	a, b2 := x.f.Apply(l).(*outcome), fresh.Apply(l).(*outcome)
	if diff := cmp.Diff(a.result, b2.result, emptyIsNil); diff != "" {
		t.Fatalf("replicas differ: %s", diff)
	}
	if diff := cmp.Diff(listView(x.f.view(), "", ""), listView(fresh.view(), "", ""), emptyIsNil); diff != "" {
		t.Fatalf("replicas differ: %s", diff)
	}
}

func TestStateMachineIsItsModel(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		x := &machine{m: newModel(), f: newFSM(quiet(), Retention{Age: time.Minute, Events: 8})}
		now := time.Unix(1000, 0)
		x.f.now = func() time.Time { return now }
		t.Repeat(map[string]func(*rapid.T){
			"command":  x.command,
			"command2": x.command,
			"command3": x.command,
			"view":     x.view,
			"watch":    x.watch,
			"next":     x.next,
			"snapshot": x.snapshot,
			"replay": func(t *rapid.T) { // Raft hands entries over again after it was restarted
				if x.index > 0 {
					c := command{op: opPut, expect: Any, key: "/a", value: []byte("again")}
					x.f.Apply(&raft.Log{Index: rapid.Uint64Range(1, x.index).Draw(t, "index"), Data: c.encode(nil)})
				}
			},
			"bad entry": func(t *rapid.T) {
				x.index++
				out := x.f.Apply(&raft.Log{Index: x.index, Data: []byte("?")}).(*outcome) //nolint:errcheck // it is
				if out.err == nil {
					t.Fatal("a malformed entry was applied")
				}
			},
			"compact": func(t *rapid.T) { x.f.compact(rapid.Uint64Range(0, x.m.rev).Draw(t, "rev")) },
			"time": func(t *rapid.T) {
				now = now.Add(time.Duration(rapid.IntRange(1, 70).Draw(t, "seconds")) * time.Second)
				x.f.retain()
			},
			"": x.check,
		})
	})
}

func TestCommandCodec(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		want := command{
			op: opPut, stamp: hlc.Stamp(rapid.Uint64().Draw(t, "stamp")),
			expect:  rapid.OneOf(rapid.Just(Any), rapid.Uint64()).Draw(t, "expect"),
			expires: rapid.Int64Range(0, 1<<40).Draw(t, "expires"),
			key:     rapid.StringN(1, 50, 200).Draw(t, "key"),
			value:   rapid.SliceOf(rapid.Byte()).Draw(t, "value"),
		}
		if rapid.Bool().Draw(t, "delete") {
			want.op, want.value, want.expires = opDelete, nil, 0
		}
		b := want.encode(nil)
		if len(b) > want.size() {
			t.Fatalf("%d bytes, size() said %d", len(b), want.size())
		}
		got, err := decodeCommand(b)
		if err != nil || fmt.Sprintf("%+v", got) != fmt.Sprintf("%+v", want) {
			t.Fatalf("got %+v, %v, want %+v", got, err, want)
		}
	})
}

func TestAnswerCodec(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		e := &Entry{
			Key: rapid.StringN(1, 50, 200).Draw(t, "key"), Value: rapid.SliceOf(rapid.Byte()).Draw(t, "value"),
			CreateRevision: 3, ModRevision: rapid.Uint64Range(3, 1<<53).Draw(t, "mod"),
			Stamp: hlc.Stamp(rapid.Uint64().Draw(t, "stamp")), Expires: rapid.Int64Range(0, 1<<40).Draw(t, "expires"),
		}
		rev := rapid.Uint64Range(1, 1<<53).Draw(t, "rev")
		a, err := decodeAnswer(encodeAnswer(Result{Revision: rev, Entry: e}, nil))
		if err != nil || a.rev != rev || !cmp.Equal(a.entry, e, emptyIsNil) {
			t.Fatalf("got %+v, %v", a, err)
		}
		a, err = decodeAnswer(encodeAnswer(Result{Revision: rev, Current: e}, ErrConflict))
		if err != nil || a.status != statusConflict || !cmp.Equal(a.entry, e, emptyIsNil) {
			t.Fatalf("got %+v, %v", a, err)
		}
		for _, want := range []error{ErrNoSpace, errRetry} {
			if _, err := decodeAnswer(encodeAnswer(Result{}, fmt.Errorf("x: %w", want))); !errors.Is(err, want) {
				t.Fatalf("got %v, want %v", err, want)
			}
		}
		if _, err := decodeAnswer(encodeAnswer(Result{}, errors.New("something else"))); err == nil || !strings.Contains(err.Error(), "something else") {
			t.Fatalf("got %v", err)
		}
	})
}
