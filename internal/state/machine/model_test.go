package machine

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
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

func newMachine(keep Retention) *Machine {
	return New(Config{Log: slog.New(slog.DiscardHandler), Retain: keep, Now: time.Now})
}

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
func (m *model) apply(c Command) bool {
	cur, exists := m.now[c.Key]
	if c.Delete && !exists || c.Expect != Any && c.Expect != cur.ModRevision {
		return false
	}
	m.rev++
	m.stamp = max(m.stamp+1, c.Stamp)
	ev := Event{Revision: m.rev, Key: c.Key}
	if exists {
		prev := cur
		ev.Prev = &prev
	}
	if c.Delete {
		delete(m.now, c.Key)
	} else {
		e := Entry{Key: c.Key, Value: c.Value, CreateRevision: m.rev, ModRevision: m.rev, Stamp: m.stamp, Expires: c.Expires}
		if exists {
			e.CreateRevision = cur.CreateRevision
		}
		m.now[c.Key] = e
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

// driver drives a state machine and its model.
type driver struct {
	f       *Machine
	m       *model
	index   uint64
	watches []*modelWatch
}

type modelWatch struct {
	w      *Watch
	prefix string
	upTo   uint64
}

func (x *driver) command(t *rapid.T) {
	c := Command{
		Stamp: hlc.Stamp(rapid.Uint64Range(0, 1000).Draw(t, "stamp")), Key: keys.Draw(t, "key"),
		Expect: Any,
	}
	if rapid.Bool().Draw(t, "delete") {
		c.Delete = true
	} else {
		c.Value = rapid.SliceOfN(rapid.Byte(), 0, 8).Draw(t, "value")
		c.Expires = rapid.Int64Range(0, 3).Draw(t, "expires")
	}
	switch rapid.IntRange(0, 3).Draw(t, "expect") {
	case 0:
		c.Expect = 0
	case 1:
		c.Expect = x.m.now[c.Key].ModRevision
	case 2:
		c.Expect = rapid.Uint64Range(0, x.m.rev).Draw(t, "rev")
	}
	x.index++
	cur, exists := x.m.now[c.Key]
	met := x.m.apply(c)
	out := x.f.Apply(&raft.Log{Index: x.index, Data: c.Encode()}).(*Outcome)
	switch {
	case met != (out.Err == nil):
		t.Fatalf("%+v: %v, want success %v", c, out.Err, met)
	case !met && (!errors.Is(out.Err, ErrConflict) || exists != (out.Current != nil) ||
		exists && !cmp.Equal(*out.Current, cur, emptyIsNil)):
		t.Fatalf("%+v: conflict with %+v, want %+v", c, out.Current, cur)
	case met && out.Revision != x.m.rev:
		t.Fatalf("%+v: revision %d, want %d", c, out.Revision, x.m.rev)
	case met && c.Delete && !cmp.Equal(*out.Entry, cur, emptyIsNil):
		t.Fatalf("%+v: removed %+v, want %+v", c, out.Entry, cur)
	}
}

var emptyIsNil = cmp.Comparer(func(a, b []byte) bool { return bytes.Equal(a, b) })

func (x *driver) view(t *rapid.T) {
	rev := rapid.Uint64Range(0, x.m.rev+1).Draw(t, "rev")
	from, end := keys.Draw(t, "from"), rapid.SampledFrom([]string{"", "/a/2", "/c/2", "/z"}).Draw(t, "end")
	v, err := x.f.ViewAt(rev)
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

func (x *driver) watch(t *rapid.T) {
	after := rapid.Uint64Range(0, x.m.rev+1).Draw(t, "after")
	prefix := rapid.SampledFrom([]string{"", "/a", "/a/", "/c/", "/nothing"}).Draw(t, "prefix")
	w, err := x.f.Watch(prefix, after)
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
func (x *driver) next(t *rapid.T) {
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

func (x *driver) check(t *rapid.T) {
	v := x.f.View()
	if diff := cmp.Diff(list(x.m.now, "", ""), listView(v, "", ""), emptyIsNil); diff != "" {
		t.Fatalf("the store differs from the model: %s", diff)
	}
	if v.Revision() != x.m.rev {
		t.Fatalf("revision %d, want %d", v.Revision(), x.m.rev)
	}
	if x.f.hist.last() != x.m.rev {
		t.Fatalf("history ends at %d, want %d", x.f.hist.last(), x.m.rev)
	}
	if e := x.f.hist.epochs; len(e) > 1 && e[1].first <= x.f.hist.base+1 {
		t.Fatalf("epochs %v are kept of a history that begins after %d", e, x.f.hist.base)
	}
	var expire []Entry
	for _, e := range x.m.now {
		if e.Expires > 0 && e.Expires <= 2 {
			expire = append(expire, e)
		}
	}
	if due, _ := x.f.Due(2, 100); len(due) != len(expire) {
		t.Fatalf("%d entries are due, want %d", len(due), len(expire))
	}
}

// snapshot copies the state through a snapshot: the copy is equal, and equal again after the same
// commands.
func (x *driver) snapshot(t *rapid.T) {
	fresh := newMachine(Retention{Age: time.Minute, Events: 8})
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
	c := Command{Expect: Any, Key: "/a", Stamp: 5, Value: []byte("both")}
	x.index++
	x.m.apply(c)
	l := &raft.Log{Index: x.index, Data: c.Encode()}
	a, b2 := x.f.Apply(l).(*Outcome), fresh.Apply(l).(*Outcome)
	if diff := cmp.Diff(a.Result, b2.Result, emptyIsNil); diff != "" {
		t.Fatalf("replicas differ: %s", diff)
	}
	if diff := cmp.Diff(listView(x.f.View(), "", ""), listView(fresh.View(), "", ""), emptyIsNil); diff != "" {
		t.Fatalf("replicas differ: %s", diff)
	}
}

func TestStateMachineIsItsModel(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		x := &driver{m: newModel(), f: newMachine(Retention{Age: time.Minute, Events: 8})}
		now := time.Unix(1000, 0)
		x.f.cfg.Now = func() time.Time { return now }
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
					c := Command{Expect: Any, Key: "/a", Value: []byte("again")}
					x.f.Apply(&raft.Log{Index: rapid.Uint64Range(1, x.index).Draw(t, "index"), Data: c.Encode()})
				}
			},
			"bad entry": func(t *rapid.T) {
				x.index++
				out := x.f.Apply(&raft.Log{Index: x.index, Data: []byte("?")}).(*Outcome)
				if out.Err == nil {
					t.Fatal("a malformed entry was applied")
				}
			},
			"compact": func(t *rapid.T) { x.f.Compact(rapid.Uint64Range(0, x.m.rev).Draw(t, "rev")) },
			"time": func(t *rapid.T) {
				now = now.Add(time.Duration(rapid.IntRange(1, 70).Draw(t, "seconds")) * time.Second)
				x.f.Age()
			},
			"": x.check,
		})
	})
}

func TestCommandCodec(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		want := Command{
			Stamp:   hlc.Stamp(rapid.Uint64().Draw(t, "stamp")),
			Expect:  rapid.OneOf(rapid.Just(Any), rapid.Uint64()).Draw(t, "expect"),
			Expires: rapid.Int64Range(0, 1<<40).Draw(t, "expires"),
			Key:     rapid.StringN(1, 50, 200).Draw(t, "key"),
			Value:   rapid.SliceOf(rapid.Byte()).Draw(t, "value"),
		}
		if rapid.Bool().Draw(t, "delete") {
			want.Delete, want.Value, want.Expires = true, nil, 0
		}
		b := want.Encode()
		got, err := decodeCommand(b)
		if err != nil || fmt.Sprintf("%+v", got) != fmt.Sprintf("%+v", want) {
			t.Fatalf("got %+v, %v, want %+v", got, err, want)
		}
	})
}

// What a newer version wrote is not skipped: everything after it would be another state than the
// one other replicas have.
func TestNewerEntryStopsTheMachine(t *testing.T) {
	f := newMachine(Retention{Age: time.Minute, Events: 8})
	c := Command{Key: "/a", Expect: Any}
	newer := c.Encode()
	newer[0] = commandVersion + 1
	out := f.ApplyBatch([]*raft.Log{{Index: 1, Data: c.Encode()}, {Index: 2, Data: newer}, {Index: 3, Data: c.Encode()}})
	for i, want := range []bool{true, false, false} {
		if err := out[i].(*Outcome).Err; (err == nil) != want {
			t.Errorf("entry %d: %v", i+1, err)
		}
	}
	if f.Revision() != 2 || f.Applied() != 1 || !strings.Contains(fmt.Sprint(f.Stuck()), "newer version") {
		t.Errorf("revision %d, applied %d, %v", f.Revision(), f.Applied(), f.Stuck())
	}
}

// A write wakes the watches of its prefixes and nobody else.
func TestNotifyTouchesOnlyItsPrefix(t *testing.T) {
	f := newMachine(Retention{Age: time.Minute, Events: 8})
	woken := func(key string) string {
		var all []*Watch
		prefixes := []string{"", "/a/", "/a/b", "/b/", "/a/b/c/d"}
		for _, p := range prefixes {
			w, err := f.Watch(p, f.Revision())
			if err != nil {
				t.Fatal(err)
			}
			defer w.Close()
			all = append(all, w)
		}
		c := Command{Key: key, Expect: Any}
		f.Apply(&raft.Log{Index: f.Applied() + 1, Data: c.Encode()})
		var names []string
		for i, w := range all {
			if len(w.wake) > 0 {
				names = append(names, prefixes[i])
			}
		}
		return strings.Join(names, ",")
	}
	for key, want := range map[string]string{"/a/b/c": ",/a/,/a/b", "/b/x": ",/b/", "/c": "", "/a": ""} {
		if got := woken(key); got != want {
			t.Errorf("a write to %s wakes %q, want %q", key, got, want)
		}
	}
	if len(f.watches.groups) != 0 || len(f.watches.lengths) != 0 {
		t.Errorf("closed watches left %d groups", len(f.watches.groups))
	}
}

// After a quiet time nothing of the past is kept.
func TestQuietTimeKeepsNothing(t *testing.T) {
	f := newMachine(Retention{Age: time.Minute, Events: 8})
	now := time.Unix(1000, 0)
	f.cfg.Now = func() time.Time { return now }
	for i := range uint64(5) {
		c := Command{Key: "/a", Expect: Any}
		f.Apply(&raft.Log{Index: i + 1, Data: c.Encode()})
		now = now.Add(10 * time.Second)
	}
	if _, err := f.ViewAt(3); err != nil {
		t.Fatal(err)
	}
	for range 3 {
		next := f.Age()
		if next.IsZero() {
			break
		}
		now = next.Add(time.Minute)
	}
	if n := len(f.hist.events) + len(f.hist.epochs) + len(f.views.versions); n != 0 || !f.Age().IsZero() {
		t.Errorf("%d things are kept", n)
	}
}
