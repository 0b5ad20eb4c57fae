package machine

import (
	"bytes"
	"io"
	"testing"
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

func FuzzReadSnapshot(f *testing.F) {
	m := newMachine(Retention{Events: 10})
	for i, key := range []string{"/a", "/b"} {
		e := &Entry{Key: key, Value: []byte("v"), CreateRevision: 1, ModRevision: uint64(i + 1), Expires: int64(i)}
		m.live.ReplaceOrInsert(item{key, e})
	}
	m.rev.Store(2)
	snap, _ := m.Snapshot()
	var b bytes.Buffer
	if err := snap.(*image).write(&b); err != nil {
		f.Fatal(err)
	}
	f.Add(b.Bytes())
	f.Fuzz(func(t *testing.T, b []byte) {
		m := newMachine(Retention{Events: 10})
		if err := m.Restore(io.NopCloser(bytes.NewReader(b))); err != nil {
			if m.rev.Load() != FirstRevision || m.live.Len() != 0 {
				t.Fatal("a refused snapshot changed the state")
			}
			return
		}
		snap, _ := m.Snapshot()
		var out bytes.Buffer
		if err := snap.(*image).write(&out); err != nil || out.Len() == 0 {
			t.Fatal(err)
		}
	})
}
