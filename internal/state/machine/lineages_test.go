package machine

import (
	"bytes"
	"fmt"
	"io"
	"maps"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/hashicorp/raft"
	"pgregory.net/rapid"

	"github.com/podman-swarm/podman-swarm/internal/hlc"
	"github.com/podman-swarm/podman-swarm/internal/state/ancestry"
	"github.com/podman-swarm/podman-swarm/internal/state/tombs"
)

// image of a machine as its snapshot has it.
func snapshotOf(t rapid.TB, f *Machine) []byte {
	t.Helper()
	snap, err := f.Snapshot()
	if err != nil {
		t.Fatal(err)
	}
	var b bytes.Buffer
	if err := snap.(*image).write(&b); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

func copyOf(t rapid.TB, f *Machine) *Machine {
	t.Helper()
	c := newMachine(Retention{Age: time.Minute, Events: 1000})
	if err := c.Restore(io.NopCloser(bytes.NewReader(snapshotOf(t, f)))); err != nil {
		t.Fatal(err)
	}
	return c
}

// do applies a log entry.
func do(t rapid.TB, f *Machine, entry []byte) *Outcome {
	t.Helper()
	return f.Apply(&raft.Log{Index: f.Applied() + 1, Data: entry}).(*Outcome)
}

func write(t rapid.TB, f *Machine, stamp hlc.Stamp, key, value string) {
	t.Helper()
	c := Command{Stamp: stamp, Key: key, Value: []byte(value), Expect: Any, Delete: value == ""}
	if out := do(t, f, c.Encode()); out.Err != nil {
		t.Fatal(out.Err)
	}
}

// machineOf is a machine of a lineage without parents.
func machineOf(id string) *Machine {
	f := newMachine(Retention{Age: time.Minute, Events: 1000})
	f.lineage = Lineage{ID: id, Born: 1}
	return f
}

// forked is a new lineage that begins where a machine stands.
func forked(t rapid.TB, f *Machine, id string) *Machine {
	t.Helper()
	c := copyOf(t, f)
	if err := c.Fork(Fork{ID: id, Born: f.Point().Stamp + 1, Jump: 1 + uint64(len(id))}); err != nil {
		t.Fatal(err)
	}
	return c
}

// handOver returns the log entries that bring one machine's changes to another.
func handOver(t rapid.TB, from, to *Machine, settled Point, chunk int) [][]byte {
	t.Helper()
	since, ok := ancestry.Since(to.Lineage(), from.Lineage())
	if !ok {
		t.Fatal("unrelated")
	}
	return merges(from.Changes(since), to, settled, chunk)
}

func merges(c *Changes, to *Machine, settled Point, chunk int) (entries [][]byte) {
	for {
		b, last := c.Next(chunk)
		m := Merge{
			To: to.Lineage().ID, From: c.Lineage, Newest: c.Newest.Revision, Settled: settled,
			Now: 1000, Final: last, Chunk: b,
		}
		entries = append(entries, m.Encode())
		if last {
			return entries
		}
	}
}

func mergeAll(t rapid.TB, from, to *Machine) Counts {
	t.Helper()
	var sum Counts
	for _, e := range handOver(t, from, to, from.Point(), 64) {
		out := do(t, to, e)
		if out.Err != nil {
			t.Fatal(out.Err)
		}
		sum.Merged += out.Merged.Merged
		sum.Kept += out.Merged.Kept
		sum.Skipped += out.Merged.Skipped
		sum.Conflicts += out.Merged.Conflicts
	}
	return sum
}

// content is what two machines must agree on once each knows all that the other does: everything
// but their own revisions and when they saw a conflict.
func content(f *Machine) []string {
	var out []string
	f.View().Ascend("", "", func(e *Entry) bool {
		if !strings.HasPrefix(e.Key, ConflictPrefix) {
			out = append(out, fmt.Sprintf("%s=%s @%d until %d", e.Key, e.Value, e.Stamp, e.Expires))
		}
		return true
	})
	f.tombs.Image().Ascend(func(t *tombs.Tomb) bool {
		out = append(out, fmt.Sprintf("%s gone @%d", t.Key, t.Stamp))
		return true
	})
	return out
}

// losses are the states that the journal holds.
func losses(t rapid.TB, f *Machine) map[string]bool {
	t.Helper()
	out := map[string]bool{}
	for c, err := range Conflicts(f.View()) {
		if err != nil {
			t.Fatal(err)
		}
		out[lossOf(c.Key, c.Lost.Stamp, string(c.Lost.Value))] = true
		if c.Lost.Deleted != (len(c.Lost.Value) == 0) || c.Same(c.Kept.Value, !c.Kept.Deleted) || c.Lost.Stamp > c.Kept.Stamp {
			t.Fatalf("the journal holds %+v", c)
		}
	}
	return out
}

func lossOf(key string, s hlc.Stamp, value string) string {
	return fmt.Sprintf("%s=%s @%d", key, value, s)
}

// lineageModel knows of each key which writes its present state was made in knowledge of: the
// textbook's version history, against which stamps and revisions have to hold.
type lineageModel struct {
	f       *Machine
	replica *Machine // gets the same log
	log     []*raft.Log
	keys    map[string]*keyModel
	lost    map[string]bool
}

type keyModel struct {
	id    int // of the write that stands; 0: none
	known map[int]bool
	value string
	stamp hlc.Stamp
}

func (k *keyModel) clone() *keyModel { c := *k; c.known = maps.Clone(k.known); return &c }

func (l *lineageModel) key(k string) *keyModel {
	if l.keys[k] == nil {
		l.keys[k] = &keyModel{known: map[int]bool{0: true}}
	}
	return l.keys[k]
}

func (l *lineageModel) apply(t rapid.TB, entry []byte) *Outcome {
	t.Helper()
	log := &raft.Log{Index: l.f.Applied() + 1, Data: entry}
	l.log = append(l.log, log)
	return l.f.Apply(log).(*Outcome)
}

// catchUp brings the replica to the present, in one batch, and compares it.
func (l *lineageModel) catchUp(t rapid.TB) {
	t.Helper()
	l.replica.ApplyBatch(l.log)
	l.log = nil
	if !bytes.Equal(snapshotOf(t, l.f), snapshotOf(t, l.replica)) {
		t.Fatal("two replicas of one log differ")
	}
}

type mergeWorld struct {
	all    []*lineageModel
	writes int
	exact  bool // two lineages only: the journal holds conflicts and nothing else
}

func (w *mergeWorld) pick(t *rapid.T, label string) *lineageModel {
	return w.all[rapid.IntRange(0, len(w.all)-1).Draw(t, label)]
}

var mergeKeys = rapid.SampledFrom([]string{"/k/1", "/k/2", "/k/3", "/k/4", "/k/5"})

func (w *mergeWorld) write(t *rapid.T) {
	l, k := w.pick(t, "lineage"), mergeKeys.Draw(t, "key")
	at := l.key(k)
	value := rapid.SampledFrom([]string{"", "x", "y", "z"}).Draw(t, "value")
	if value == "" && at.value == "" {
		return
	}
	c := Command{
		Stamp: hlc.Stamp(rapid.Uint64Range(0, 60).Draw(t, "stamp")), Key: k,
		Value: []byte(value), Expect: Any, Delete: value == "",
	}
	if out := l.apply(t, c.Encode()); out.Err != nil {
		t.Fatal(out.Err)
	}
	w.writes++
	at.id, at.value, at.stamp = w.writes, value, l.f.Point().Stamp
	at.known[at.id] = true
}

func (w *mergeWorld) fork(t *rapid.T, limit int) {
	if len(w.all) >= limit {
		return
	}
	l := w.pick(t, "parent")
	l.catchUp(t)
	f := forked(t, l.f, strings.Repeat("f", len(w.all)+1))
	n := &lineageModel{f: f, replica: copyOf(t, f), keys: map[string]*keyModel{}, lost: maps.Clone(l.lost)}
	for k, at := range l.keys {
		n.keys[k] = at.clone()
	}
	w.all = append(w.all, n)
}

// merge hands one lineage over to another, in any chunks, some of them twice.
func (w *mergeWorld) merge(t *rapid.T, from, to *lineageModel) {
	if from == to {
		return
	}
	entries := handOver(t, from.f, to.f, from.f.Point(), rapid.IntRange(1, 120).Draw(t, "chunk"))
	for _, e := range entries {
		for range rapid.IntRange(1, 2).Draw(t, "times") {
			if out := to.apply(t, e); out.Err != nil {
				t.Fatal(out.Err)
			}
		}
	}
	maps.Copy(to.lost, from.lost)
	for k, x := range from.keys {
		at := to.key(k)
		if !at.known[x.id] && !x.known[at.id] && x.value != at.value {
			old := at
			if at.stamp > x.stamp || at.stamp == x.stamp && at.value > x.value {
				old = x
			}
			to.lost[lossOf(k, old.stamp, old.value)] = true
		}
		if x.id != 0 && (at.id == 0 || x.stamp > at.stamp || x.stamp == at.stamp && x.value > at.value) {
			at.id, at.value, at.stamp = x.id, x.value, x.stamp
		}
		maps.Copy(at.known, x.known)
	}
	w.check(t, to)
	before := snapshotOf(t, to.f)
	for _, e := range entries {
		if out := do(t, copyOf(t, to.f), e); out.Err != nil || out.Merged.Merged+out.Merged.Conflicts > 0 {
			t.Fatalf("a merge did %+v again, %v", out.Merged, out.Err)
		}
	}
	if !bytes.Equal(before, snapshotOf(t, to.f)) {
		t.Fatal("a copy's merge changed the original")
	}
}

func (w *mergeWorld) check(t *rapid.T, l *lineageModel) {
	for k, at := range l.keys {
		e, ok := l.f.View().Get(k)
		tomb := l.f.tombs.Get(k)
		switch {
		case at.value != "" && (!ok || string(e.Value) != at.value || e.Stamp != at.stamp || tomb != nil):
			t.Fatalf("%s is %+v (gone: %+v), want %q @%d", k, e, tomb, at.value, at.stamp)
		case at.value == "" && (ok || at.id != 0 && (tomb == nil || tomb.Stamp != at.stamp)):
			t.Fatalf("%s is %+v (gone: %+v), want it deleted @%d", k, e, tomb, at.stamp)
		}
	}
	have := losses(t, l.f)
	for loss := range l.lost {
		if !have[loss] {
			t.Fatalf("%s was lost and is not in the journal: %v", loss, have)
		}
	}
	if w.exact && len(have) != len(l.lost) {
		t.Fatalf("the journal has %v, want %v", have, l.lost)
	}
}

func TestLineagesMerge(t *testing.T) {
	for _, lineages := range []int{2, 4} {
		t.Run(fmt.Sprint(lineages), rapid.MakeCheck(func(t *rapid.T) {
			f := machineOf("a")
			w := &mergeWorld{exact: lineages == 2, all: []*lineageModel{{
				f: f, replica: copyOf(t, f), keys: map[string]*keyModel{}, lost: map[string]bool{},
			}}}
			t.Repeat(map[string]func(*rapid.T){
				"write":  w.write,
				"write2": w.write,
				"write3": w.write,
				"fork":   func(t *rapid.T) { w.fork(t, lineages) },
				"merge":  func(t *rapid.T) { w.merge(t, w.pick(t, "from"), w.pick(t, "to")) },
			})
			for range len(w.all) { // until everybody has heard of everything
				for _, from := range rapid.Permutation(w.all).Draw(t, "from") {
					for _, to := range w.all {
						w.merge(t, from, to)
					}
				}
			}
			for _, l := range w.all {
				l.catchUp(t)
				if diff := cmp.Diff(content(w.all[0].f), content(l.f)); diff != "" {
					t.Fatalf("lineages differ after all merges: %s", diff)
				}
			}
		}))
	}
}

// Three lineages of one, merged in every order and grouping.
func TestMergeOrderDoesNotMatter(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		a := machineOf("a")
		scribble := func(f *Machine, label string) {
			for range rapid.IntRange(0, 8).Draw(t, label) {
				c := Command{
					Stamp: hlc.Stamp(rapid.Uint64Range(0, 30).Draw(t, "stamp")), Key: mergeKeys.Draw(t, "key"), Expect: Any,
					Value: []byte(rapid.SampledFrom([]string{"", "x", "y"}).Draw(t, "value")),
				}
				c.Delete = len(c.Value) == 0
				do(t, f, c.Encode())
			}
		}
		scribble(a, "before")
		b := forked(t, a, "b")
		scribble(b, "b1")
		c := forked(t, rapid.SampledFrom([]*Machine{a, b}).Draw(t, "parent"), "cc")
		for i, f := range []*Machine{a, b, c} {
			scribble(f, string(rune('a'+i)))
		}
		into := func(to *Machine, from ...*Machine) *Machine {
			to = copyOf(t, to)
			for _, f := range from {
				mergeAll(t, f, to)
			}
			return to
		}
		want := content(into(a, b, c))
		for name, got := range map[string]*Machine{
			"a+c+b": into(a, c, b), "a+(b+c)": into(a, into(b, c)), "a+(c+b)": into(a, into(c, b)),
			"(b+c)+a": into(into(b, c), a), "c+(a+b)": into(c, into(a, b)), "b+(c+a)": into(b, into(c, a)),
			"a+b+c+b+c": into(a, b, c, b, c),
		} {
			if diff := cmp.Diff(want, content(got)); diff != "" {
				t.Fatalf("a+b+c and %s differ: %s", name, diff)
			}
		}
	})
}
