package state

import (
	"bytes"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/podman-swarm/podman-swarm/internal/state/call"
)

var emptyIsNil = cmp.Comparer(func(a, b []byte) bool { return bytes.Equal(a, b) })

func listView(v View, from, end string) []Entry {
	var out []Entry
	v.Ascend(from, end, func(e *Entry) bool { out = append(out, *e); return true })
	return out
}

func FuzzServe(f *testing.F) {
	s := open(f, Config{})
	for kind := call.Kind(0); kind < 9; kind++ {
		q := call.Request{Kind: kind, Lineage: s.Status().Lineage.ID, Body: call.Mutation{Key: "/k", Value: []byte("v"), Expect: Any}.Encode()}
		f.Add(q.Encode())
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		if _, err := call.DecodeAnswer(s.Serve(t.Context(), b)); err != nil {
			t.Fatal(err)
		}
	})
}
