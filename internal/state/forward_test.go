package state

import (
	"bytes"
	"testing"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"github.com/podman-swarm/podman-swarm/internal/state/call"
)

var emptyIsNil = cmp.Comparer(func(a, b []byte) bool { return bytes.Equal(a, b) })

func listView(v View, from, end string) []Entry {
	var out []Entry
	v.Ascend(from, end, func(e *Entry) bool { out = append(out, *e); return true })
	return out
}

func TestWriteCodec(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		w := Write{
			Key: rapid.StringN(1, 50, 200).Draw(t, "key"), Value: rapid.SliceOf(rapid.Byte()).Draw(t, "value"),
			Expect: rapid.Uint64().Draw(t, "expect"), TTL: rapid.Int64Range(0, 1<<30).Draw(t, "ttl"), Delete: rapid.Bool().Draw(t, "delete"),
		}
		got, err := decodeWrite(encodeWrite(w))
		if w.Delete {
			w.Value = nil
		}
		if err != nil || !cmp.Equal(got, w, emptyIsNil) {
			t.Fatalf("got %+v, %v; want %+v", got, err, w)
		}
	})
}

func FuzzServe(f *testing.F) {
	s := open(f, Config{})
	for kind := call.Kind(0); kind < 9; kind++ {
		q := call.Request{Kind: kind, Lineage: s.Status().Lineage.ID, Body: encodeWrite(Write{Key: "/k", Value: []byte("v"), Expect: Any})}
		f.Add(q.Encode())
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		if _, err := call.DecodeAnswer(s.Serve(t.Context(), b)); err != nil {
			t.Fatal(err)
		}
	})
}
