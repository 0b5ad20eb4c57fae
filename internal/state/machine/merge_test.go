package machine

import (
	"bytes"
	"context"
	"errors"
	"io"
	"maps"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"github.com/podman-swarm/podman-swarm/internal/hlc"
	"github.com/podman-swarm/podman-swarm/internal/state/ancestry"
	"github.com/podman-swarm/podman-swarm/internal/state/tombs"
)

// Nothing that lies before a merge is mixed up with what comes after, and watches do not miss a
// thing: they are told to begin anew.
func TestFinalMergeLeaps(t *testing.T) {
	a := machineOf("a")
	write(t, a, 1, "/k", "old")
	b := forked(t, a, "b")
	write(t, a, 2, "/k", "a")
	write(t, b, 3, "/k", "b")
	w, err := a.Watch("", a.Revision())
	if err != nil {
		t.Fatal(err)
	}
	old := a.Revision()
	if n := mergeAll(t, b, a); n != (Counts{Merged: 1, Conflicts: 1}) {
		t.Errorf("merged %+v", n)
	}
	if a.Revision() <= b.Revision() {
		t.Errorf("revision %d is not beyond %d", a.Revision(), b.Revision())
	}
	if _, _, err := w.Next(t.Context(), nil); !errors.Is(err, ErrCompacted) {
		t.Errorf("watch: %v", err)
	}
	for _, rev := range []uint64{old, b.Revision()} {
		if _, err := a.Watch("", rev); !errors.Is(err, ErrCompacted) {
			t.Errorf("watch after %d: %v", rev, err)
		}
		if _, err := a.ViewAt(rev); !errors.Is(err, ErrCompacted) {
			t.Errorf("view at %d: %v", rev, err)
		}
	}
	rev := a.Revision()
	if n := mergeAll(t, b, a); n != (Counts{}) || a.Revision() != rev {
		t.Errorf("again: merged %+v, revision %d, was %d", n, a.Revision(), rev)
	}
	// A lineage that did nothing has clients that know its revisions, too.
	c := forked(t, a, "ccc")
	if n := mergeAll(t, c, a); n != (Counts{}) || a.Revision() <= c.Revision() {
		t.Errorf("an idle lineage: %+v, revision %d, not beyond %d", n, a.Revision(), c.Revision())
	}
}

// Mutations of a chunk are events like any other as long as the hand-over goes on.
func TestMergedWritesAreEvents(t *testing.T) {
	a := machineOf("a")
	write(t, a, 1, "/k", "old")
	write(t, a, 2, "/gone", "x")
	b := forked(t, a, "b")
	write(t, b, 3, "/k", "new")
	write(t, b, 4, "/gone", "")
	write(t, b, 5, "/z", "z")
	entries := handOver(t, b, a, b.Point(), 1)
	if len(entries) != 3 {
		t.Fatalf("%d entries", len(entries))
	}
	from := a.Revision()
	w, err := a.Watch("", from)
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range entries[:2] {
		do(t, a, e)
	}
	evs, upTo, err := w.Next(t.Context(), nil)
	if err != nil || len(evs) != 2 || upTo != from+2 {
		t.Fatalf("%v up to %d, %v", evs, upTo, err)
	}
	e := evs[0].Entry
	if e == nil || e.Key != "/k" || e.Stamp != 3 || e.ModRevision != from+1 || e.CreateRevision != evs[0].Prev.CreateRevision {
		t.Errorf("merged %+v", e)
	}
	do(t, a, entries[2])
	if _, _, err := w.Next(t.Context(), nil); !errors.Is(err, ErrCompacted) {
		t.Errorf("after the last chunk: %v", err)
	}
	if e, ok := a.View().Get("/gone"); ok {
		t.Errorf("%+v was deleted", e)
	}
	if e, _ := a.View().Get("/z"); e == nil || e.Stamp != 5 {
		t.Errorf("/z is %+v", e)
	}
	if next := (Command{Key: "/k", Expect: Any}); do(t, a, next.Encode()).Entry.Stamp <= 5 {
		t.Error("a later write is not newer than what was merged")
	}
}

// Two replicas of the losing lineage whose logs ended differently, and a user who writes in between.
func TestSecondReplicaHandsOver(t *testing.T) {
	w := machineOf("w")
	write(t, w, 1, "/k", "old")
	one := forked(t, w, "b")
	write(t, one, 10, "/k", "b")
	settled := one.Point()
	two := copyOf(t, one)
	write(t, one, 100, "/tail", "nobody was told")
	write(t, two, 90, "/tail", "acknowledged")
	entries := handOver(t, one, w, settled, 1000)
	again := handOver(t, two, w, settled, 1000)
	do(t, w, entries[0])
	write(t, w, 11, "/k", "newer")
	out := do(t, w, again[0])
	if *out.Merged != (Counts{Skipped: 1, Kept: 1, Conflicts: 1}) {
		t.Errorf("the second replica brings %+v, %v", out.Merged, out.Err)
	}
	if l := losses(t, w); !l[lossOf("/tail", 90, "acknowledged")] || len(l) != 1 {
		t.Errorf("the journal has %v", l)
	}
}

// What came by a third lineage is known as well: its own replicas bring nothing new.
func TestMergesAreInherited(t *testing.T) {
	a := machineOf("a")
	write(t, a, 1, "/k", "old")
	b, c := forked(t, a, "b"), forked(t, a, "c")
	write(t, b, 10, "/k", "b")
	mergeAll(t, b, a)
	mergeAll(t, a, c)
	write(t, c, 11, "/k", "newer")
	if n := mergeAll(t, b, c); n != (Counts{}) || len(losses(t, c)) != 0 {
		t.Errorf("b's next replica hands over %+v", n)
	}
	late := Merge{To: "c", From: b.Lineage(), Newest: b.Revision(), Settled: b.Point(), Now: 1000, Final: true}
	late.Chunk, _ = b.Changes(Point{}).Next(1000) // as if it had asked before the merges
	if out := do(t, c, late.Encode()); *out.Merged != (Counts{Skipped: 1}) || len(losses(t, c)) != 0 {
		t.Errorf("too much was handed over: %+v, %v", out.Merged, losses(t, c))
	}
}

// A merged write is old by its stamp and new by its revision: whoever forked before it came must
// get it.
func TestMergedWritesReachEarlierForks(t *testing.T) {
	a := machineOf("a")
	b := forked(t, a, "b")
	write(t, b, 5, "/b", "b")
	write(t, a, 50, "/a", "a")
	c := forked(t, a, "c")
	mergeAll(t, b, a)
	mergeAll(t, a, c)
	if e, ok := c.View().Get("/b"); !ok || e.Stamp != 5 {
		t.Errorf("/b is %+v", e)
	}
}

func TestMergeIsRefused(t *testing.T) {
	a, stranger := machineOf("a"), machineOf("s")
	write(t, a, 1, "/k", "a")
	write(t, stranger, 2, "/k", "s")
	b := forked(t, a, "b")
	write(t, b, 3, "/k", "b")
	good, err := DecodeMerge(handOver(t, b, a, b.Point(), 1000)[0])
	if err != nil {
		t.Fatal(err)
	}
	before := snapshotOf(t, a)
	for name, x := range map[string]struct {
		change func(*Merge)
		want   error
	}{
		"another lineage": {func(m *Merge) { m.To = "b" }, ErrLineage},
		"itself":          {func(m *Merge) { m.From = a.Lineage() }, ErrLineage},
		"a stranger":      {func(m *Merge) { m.From = stranger.Lineage() }, ErrUnrelated},
		"no changes":      {func(m *Merge) { m.Chunk = nil }, errBadChunk},
		"cut short":       {func(m *Merge) { m.Chunk = m.Chunk[:len(m.Chunk)-1] }, errBadChunk},
		"exhausted":       {func(m *Merge) { m.Newest = maxRevision }, ErrExhausted},
	} {
		m := *good
		x.change(&m)
		out := do(t, copyOf(t, a), m.Encode())
		if !errors.Is(out.Err, x.want) || out.Merged != nil {
			t.Errorf("%s: %+v, %v", name, out.Merged, out.Err)
		}
	}
	if !bytes.Equal(before, snapshotOf(t, a)) {
		t.Error("a refused merge changed the state")
	}
}

// What expires is handed over only as long as it lives, and leaves no tombstone.
func TestMergeAndExpiry(t *testing.T) {
	a := machineOf("a")
	b := forked(t, a, "b")
	for key, expires := range map[string]int64{"/past": 1000, "/future": 1001} { // merges are at 1000
		c := Command{Key: key, Value: []byte("v"), Expires: expires, Expect: Any}
		do(t, b, c.Encode())
	}
	if n := mergeAll(t, b, a); n != (Counts{Merged: 1, Skipped: 1}) {
		t.Errorf("merged %+v", n)
	}
	if e, ok := a.View().Get("/future"); !ok || e.Expires != 1001 {
		t.Errorf("/future is %+v", e)
	}
	if due, _ := a.Due(1001, 10); len(due) != 1 {
		t.Errorf("%d entries are due", len(due))
	}
	write(t, a, 0, "/future", "")
	if a.tombs.Get("/future") != nil {
		t.Error("a key that expires left a tombstone")
	}
}

// Keys that are no use in a journal are not in it; the newer one wins.
func TestDerivedKeysHaveNoConflicts(t *testing.T) {
	a := machineOf("a")
	b := forked(t, a, "b")
	for _, key := range []string{"/leases/kube-system/scheduler", "/swarm/nodeports/30080"} {
		write(t, a, 0, key, "a")
		write(t, b, 100, key, "b")
	}
	if n := mergeAll(t, b, a); n != (Counts{Merged: 2}) {
		t.Errorf("merged %+v", n)
	}
}

// A conflict that was settled stays settled, whoever hands it over again.
func TestUndoAndDismiss(t *testing.T) {
	for _, deleted := range []bool{false, true} {
		a := machineOf("a")
		write(t, a, 1, "/k", "old")
		b, c := forked(t, a, "b"), forked(t, a, "c")
		write(t, a, 20, "/k", "kept")
		value := "lost"
		if deleted {
			value = ""
		}
		write(t, b, 10, "/k", value)
		mergeAll(t, b, a)
		mergeAll(t, b, c)
		var all []*Conflict
		for x, err := range Conflicts(a.View()) {
			if err != nil {
				t.Fatal(err)
			}
			all = append(all, x)
		}
		if len(all) != 1 {
			t.Fatalf("%d conflicts", len(all))
		}
		x, err := GetConflict(a.View(), all[0].ID)
		if err != nil || x.Key != "/k" || x.At != 1000 || x.Lost.Lineage != "b" || x.Kept.Lineage != "a" ||
			string(x.Kept.Value) != "kept" || string(x.Lost.Value) != value || x.Lost.Stamp != 10 || x.Kept.Stamp != 20 {
			t.Fatalf("conflict %+v, %v", x, err)
		}
		dismissed := copyOf(t, a)
		write(t, dismissed, a.Stamp(), ConflictPrefix+x.ID, "")
		if n := mergeAll(t, c, dismissed); n.Kept != 1 || len(losses(t, dismissed)) != 0 {
			t.Errorf("a dismissed conflict came back: %+v", n)
		}
		cur, _ := a.View().Get("/k")
		undo, needed := Undo(x, cur)
		if !needed {
			t.Fatal("nothing to undo")
		}
		undo.Stamp = a.Stamp()
		if out := do(t, a, undo.Encode()); out.Err != nil {
			t.Fatal(out.Err)
		}
		if out := do(t, a, undo.Encode()); !errors.Is(out.Err, ErrConflict) {
			t.Errorf("undone twice: %v", out.Err)
		}
		cur, _ = a.View().Get("/k")
		if _, needed := Undo(x, cur); needed || (cur == nil) != deleted {
			t.Errorf("undone, /k is %+v", cur)
		}
		write(t, a, a.Stamp(), ConflictPrefix+x.ID, "")
		if _, err := GetConflict(a.View(), x.ID); !errors.Is(err, ErrNoConflict) {
			t.Errorf("dismissed: %v", err)
		}
		mergeAll(t, c, a)
		if n := len(losses(t, a)); n != 0 {
			t.Errorf("%d conflicts came back", n)
		}
	}
}

func TestFork(t *testing.T) {
	f := machineOf("a")
	write(t, f, 7, "/k", "v")
	shared := f.Point()
	write(t, f, 8, "/k", "tail")
	w, err := f.Watch("", f.Revision())
	if err != nil {
		t.Fatal(err)
	}
	for _, bad := range []Fork{{}, {ID: "a", Jump: 1}, {ID: "b"}, {ID: "b", Jump: 1<<24 + 1}, {ID: "b", Jump: 1, Shared: Point{Revision: 9}}} {
		if err := f.Fork(bad); err == nil || f.Lineage().ID != "a" || f.Revision() != 3 {
			t.Errorf("%+v: %v", bad, err)
		}
	}
	if err := f.Fork(Fork{ID: "b", Born: 9, Jump: 1 << 24, Shared: shared}); err != nil {
		t.Fatal(err)
	}
	want := Lineage{ID: "b", Born: 9, Parents: []Ancestor{{ID: "a", Point: shared}}}
	if diff := cmp.Diff(want, f.Lineage(), cmp.AllowUnexported(ancestry.Merged{})); diff != "" {
		t.Error(diff)
	}
	if rev := f.Revision(); rev != (1<<24+1)<<16 {
		t.Errorf("revision %d", rev)
	}
	if _, _, err := w.Next(t.Context(), nil); !errors.Is(err, ErrCompacted) {
		t.Errorf("watch: %v", err)
	}
	if e, ok := f.View().Get("/k"); !ok || string(e.Value) != "tail" || e.ModRevision != 3 {
		t.Errorf("/k is %+v", e)
	}
	f.rev.Store(maxRevision - 1)
	f.hist.reset(maxRevision - 1)
	if err := f.Fork(Fork{ID: "c", Jump: 1}); !errors.Is(err, ErrExhausted) || f.Lineage().ID != "b" {
		t.Errorf("exhausted: %v", err)
	}
}

func TestRetire(t *testing.T) {
	f := machineOf("a")
	write(t, f, 1, "/k", "v")
	idle, err := f.Watch("", f.Revision())
	if err != nil {
		t.Fatal(err)
	}
	waits := make(chan error, 1)
	go func() { waits <- f.WaitFor(context.Background(), 100, 0) }()
	for len(func() []waiter { f.mu.RLock(); defer f.mu.RUnlock(); return f.waiters }()) == 0 {
		if len(waits) > 0 {
			t.Fatal(<-waits)
		}
	}
	f.Retire()
	if err := <-waits; !errors.Is(err, ErrRetired) {
		t.Errorf("waiter: %v", err)
	}
	if err := f.WaitFor(t.Context(), 1, 0); err != nil {
		t.Errorf("what is here is here: %v", err)
	}
	if _, _, err := idle.Next(t.Context(), nil); !errors.Is(err, ErrCompacted) {
		t.Errorf("watch: %v", err)
	}
	if _, err := f.Watch("", f.Revision()); !errors.Is(err, ErrRetired) {
		t.Errorf("new watch: %v", err)
	}
	if e, ok := f.View().Get("/k"); !ok || string(e.Value) != "v" {
		t.Errorf("/k is %+v", e)
	}
	f.Close()
	if err := f.WaitFor(t.Context(), 100, 0); !errors.Is(err, ErrClosed) {
		t.Errorf("closed: %v", err)
	}
}

// Chunks hold every change once, whatever their size, and are as small as asked for.
func TestChangesInChunks(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		f := machineOf("a")
		var since Point
		for i := range rapid.IntRange(0, 20).Draw(t, "writes") {
			c := Command{Key: mergeKeys.Draw(t, "key"), Expect: Any, Value: make([]byte, rapid.IntRange(0, 40).Draw(t, "size"))}
			c.Delete = len(c.Value) == 0
			do(t, f, c.Encode())
			if i == 5 {
				since = f.Point()
			}
		}
		want := map[string]uint64{}
		f.View().Ascend("", "", func(e *Entry) bool { want[e.Key] = e.ModRevision; return true })
		f.tombs.Image().Ascend(func(t *tombs.Tomb) bool { want[t.Key] = t.Revision; return true })
		maps.DeleteFunc(want, func(_ string, rev uint64) bool { return rev <= since.Revision })
		limit := rapid.IntRange(1, 100).Draw(t, "limit")
		c := f.Changes(since)
		write(t, f, 0, "/later", "x") // not in the image
		got := map[string]uint64{}
		for last := false; !last; {
			var b []byte
			b, last = c.Next(limit)
			all, err := decodeChunk(b)
			if err != nil || len(b) > limit && len(all) > 1 || len(all) == 0 && !last {
				t.Fatalf("%d changes in %d bytes of %d, %v", len(all), len(b), limit, err)
			}
			for _, x := range all {
				if got[x.key] != 0 {
					t.Fatalf("%s comes twice", x.key)
				}
				got[x.key] = x.rev
			}
		}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Fatal(diff)
		}
	})
}

func TestMergeCodec(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		num := func(label string) uint64 { return rapid.Uint64Range(0, maxRevision).Draw(t, label) }
		want := Merge{
			To: rapid.StringN(1, 10, 60).Draw(t, "to"), From: Lineage{ID: "b", Born: 3, Parents: []Ancestor{{ID: "a", Point: Point{Stamp: 4, Revision: 5}}}},
			Newest: num("newest"), Now: int64(num("now")), Final: rapid.Bool().Draw(t, "final"),
			Chunk: rapid.SliceOf(rapid.Byte()).Draw(t, "chunk"),
		}
		want.Settled = Point{Stamp: hlc.Stamp(num("stamp")), Revision: min(num("settled"), want.Newest)}
		got, err := DecodeMerge(want.Encode())
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(&want, got, cmp.AllowUnexported(ancestry.Merged{})); diff != "" {
			t.Fatal(diff)
		}
	})
}

// versionOne is a snapshot as version 1 wrote it.
var versionOne = []byte("psw-state\x01" +
	"\x00\x00\x00\x00\x00\x00\x00\x09" + "\x00\x00\x00\x00\x00\x00\x00\x08" +
	"\x00\x00\x00\x00\x00\x00\x00\x07" + "\x00\x00\x00\x00\x00\x00\x00\x01" +
	"\x10\x02/k\x02\x09" + "\x00\x00\x00\x00\x00\x00\x00\x07" + "\x00\x01v")

// What version 1 wrote is read: it knows no lineage and no tombstones.
func TestSnapshotVersions(t *testing.T) {
	e := Entry{Key: "/k", Value: []byte("v"), CreateRevision: 2, ModRevision: 9, Stamp: 7}
	f := New(Config{Log: newMachine(Retention{}).cfg.Log, Now: time.Now, Lineage: Lineage{ID: "configured"}})
	if err := f.Restore(io.NopCloser(bytes.NewReader(versionOne))); err != nil {
		t.Fatal(err)
	}
	if got, _ := f.View().Get("/k"); !cmp.Equal(*got, e) || f.Revision() != 9 || f.Applied() != 8 || f.Lineage().ID != "configured" {
		t.Errorf("%+v at %d, index %d, lineage %+v", got, f.Revision(), f.Applied(), f.Lineage())
	}
	write(t, f, 0, "/gone", "x")
	write(t, f, 0, "/gone", "")
	snap := snapshotOf(t, f)
	if again := snapshotOf(t, copyOf(t, f)); !bytes.Equal(snap, again) {
		t.Error("a snapshot does not read back as it was written")
	}
	if c := copyOf(t, f); c.Lineage().ID != "configured" || c.tombs.Get("/gone") == nil {
		t.Errorf("lineage %+v", c.Lineage())
	}
	snap[len(snapshotMagic)] = snapshotVersion + 1
	if err := f.Restore(io.NopCloser(bytes.NewReader(snap))); err == nil || !strings.Contains(err.Error(), "newer version") {
		t.Errorf("a newer snapshot: %v", err)
	}
}
