package state

import (
	"bytes"
	"io"
	"testing"
)

func FuzzDecodeCommand(f *testing.F) {
	put := command{op: opPut, key: "/k", value: []byte("v"), expect: 3, stamp: 9, expires: 7}
	del := command{op: opDelete, key: "/k", expect: Any}
	f.Add(put.encode(nil))
	f.Add(del.encode(nil))
	f.Fuzz(func(t *testing.T, b []byte) {
		c, err := decodeCommand(b)
		if err != nil {
			return
		}
		if again, err := decodeCommand(c.encode(nil)); err != nil || again.key != c.key || !bytes.Equal(again.value, c.value) {
			t.Fatalf("%+v reads back as %+v, %v", c, again, err)
		}
	})
}

func FuzzReadSnapshot(f *testing.F) {
	m := newFSM(quiet(), Retention{Events: 10})
	for i, key := range []string{"/a", "/b"} {
		e := &Entry{Key: key, Value: []byte("v"), CreateRevision: 1, ModRevision: uint64(i + 1), Expires: int64(i)} //nolint:gosec // small
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
		m := newFSM(quiet(), Retention{Events: 10})
		if err := m.Restore(io.NopCloser(bytes.NewReader(b))); err != nil {
			if m.rev.Load() != firstRevision || m.live.Len() != 0 {
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

func FuzzPeerMessages(f *testing.F) {
	f.Add([]byte{wireVersion, askWrite, 0, 1, 0, 2, '/', 'k', 'v'})
	f.Add(encodeAnswer(Result{Revision: 7, Entry: &Entry{Key: "/k", CreateRevision: 1, ModRevision: 1}}, nil))
	f.Fuzz(func(_ *testing.T, b []byte) {
		_, _ = decodeAnswer(b)
		_, _ = decodeWrite(b)
	})
}
