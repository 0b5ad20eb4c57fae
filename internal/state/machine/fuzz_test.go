package machine

import (
	"bytes"
	"io"
	"reflect"
	"testing"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"github.com/podman-swarm/podman-swarm/internal/state/journal"
)

func FuzzDecodeCommand(f *testing.F) {
	put := Command{Key: "/k", Value: []byte("v"), Expect: 3, Stamp: 9, Expires: 7}
	del := Command{Delete: true, Key: "/k", Expect: Any}
	f.Add(put.Encode())
	f.Add(del.Encode())
	f.Fuzz(func(t *testing.T, b []byte) {
		c, err := decodeCommand(b)
		if err != nil {
			return
		}
		if again, err := decodeCommand(c.Encode()); err != nil || again.Key != c.Key || !bytes.Equal(again.Value, c.Value) {
			t.Fatalf("%+v reads back as %+v, %v", c, again, err)
		}
	})
}

func FuzzMerge(f *testing.F) {
	base := machineOf("a")
	write(f, base, 1, "/k", "old")
	write(f, base, 2, "/gone", "x")
	b := forked(f, base, "b")
	write(f, b, 9, "/k", "b")
	write(f, b, 9, "/gone", "")
	write(f, b, 9, "/never", "x")
	write(f, b, 9, "/never", "")
	write(f, base, 5, "/k", "a")
	f.Add(handOver(f, b, base, b.Point(), 1000)[0])
	f.Add(handOver(f, b, base, Point{}, 1)[0])
	f.Fuzz(func(t *testing.T, entry []byte) {
		m, err := DecodeMerge(entry)
		if err != nil {
			return
		}
		again, err := DecodeMerge(m.Encode())
		if diff := cmp.Diff(m, again, cmp.Exporter(func(reflect.Type) bool { return true })); err != nil || diff != "" {
			t.Fatalf("%v, %s", err, diff)
		}
		// Whatever it says, what comes of it is a state that can be stored and read.
		to := copyOf(t, base)
		if out := do(t, to, entry); out.Err != nil && !bytes.Equal(stateOf(t, to), stateOf(t, base)) {
			t.Fatalf("refused (%v), but the state has changed", out.Err)
		}
		if !bytes.Equal(snapshotOf(t, to), snapshotOf(t, copyOf(t, to))) {
			t.Fatal("the state does not read back as it was written")
		}
		for range Conflicts(to.View()) {
			continue
		}
	})
}

// stateOf is a snapshot but for the log index.
func stateOf(t rapid.TB, f *Machine) []byte {
	b := snapshotOf(t, f)
	at := len(snapshotMagic) + 1 + 8
	return append(b[:at:at], b[at+8:]...)
}

func FuzzDecodeChunk(f *testing.F) {
	a := machineOf("a")
	write(f, a, 1, "/k", "v")
	write(f, a, 2, "/gone", "x")
	write(f, a, 3, "/gone", "")
	chunk, _ := a.Changes(Point{}).Next(1000)
	f.Add(chunk)
	lost := a.Changes(Point{})
	lost.Handing = func(string, []byte) journal.Handing { return journal.Record }
	chunk, _ = lost.Next(1000)
	f.Add(chunk)
	f.Fuzz(func(t *testing.T, b []byte) {
		all, err := decodeChunk(b)
		if err != nil {
			return
		}
		out := []byte{chunkVersion}
		for i := range all {
			out = all[i].append(out)
		}
		again, err := decodeChunk(out)
		if diff := cmp.Diff(all, again, cmp.AllowUnexported(change{})); err != nil || diff != "" {
			t.Fatalf("%v, %s", err, diff)
		}
	})
}

func FuzzReadSnapshot(f *testing.F) {
	a := machineOf("a")
	for i, key := range []string{"/a", "/b", "/c", "/d"} {
		c := Command{Key: key, Value: []byte("v"), Expect: Any, Expires: int64(i)}
		do(f, a, c.Encode())
	}
	write(f, a, 9, "/a", "")
	b := forked(f, a, "b")
	write(f, b, 10, "/e", "e")
	mergeAll(f, b, a)
	now := snapshotOf(f, a)
	f.Add(now)
	f.Add(snapshotOf(f, b))
	f.Add(versionOne)
	write(f, b, at(0), "/e", "")
	write(f, b, at(8*day), "/a", "fast")
	f.Add(snapshotOf(f, b))
	f.Fuzz(func(t *testing.T, b []byte) {
		m := newMachine(Retention{Events: 10})
		if err := m.Restore(io.NopCloser(bytes.NewReader(b))); err != nil {
			if m.rev.Load() != FirstRevision || m.live.Len() != 0 || m.lineage.ID != "" || m.tombs.Image().Len() != 0 {
				t.Fatal("a refused snapshot changed the state")
			}
			return
		}
		first := snapshotOf(t, m)
		if again := snapshotOf(t, copyOf(t, m)); !bytes.Equal(first, again) {
			t.Fatal("a snapshot does not read back as it was written")
		}
	})
}
