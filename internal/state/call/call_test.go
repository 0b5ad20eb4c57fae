package call_test

import (
	"bytes"
	"testing"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"github.com/podman-swarm/podman-swarm/internal/state/call"
)

func TestCodecs(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		body := rapid.SliceOf(rapid.Byte()).Draw(t, "body")
		q := call.Request{
			Kind: call.Kind(rapid.Byte().Draw(t, "kind")), Lineage: rapid.StringN(0, 64, 64).Draw(t, "lineage"), Body: body,
		}
		got, err := call.DecodeRequest(q.Encode())
		if err != nil || got.Kind != q.Kind || got.Lineage != q.Lineage || !bytes.Equal(got.Body, body) {
			t.Fatalf("got %+v, %v; want %+v", got, err, q)
		}
		a := call.Answer{Status: call.Status(rapid.Byte().Draw(t, "status")), Revision: rapid.Uint64().Draw(t, "rev"), Body: body}
		back, err := call.DecodeAnswer(a.Encode())
		if err != nil || back.Status != a.Status || back.Revision != a.Revision || !bytes.Equal(back.Body, body) {
			t.Fatalf("got %+v, %v; want %+v", back, err, a)
		}
		s := call.Reach{Eligible: rapid.Bool().Draw(t, "eligible"), Full: rapid.Bool().Draw(t, "full"), Term: rapid.Uint64().Draw(t, "term"), Index: 7}
		if got, err := call.DecodeReach(s.Encode()); err != nil || got != s {
			t.Fatalf("got %+v, %v; want %+v", got, err, s)
		}
	})
}

func TestMutationCodec(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		m := call.Mutation{
			Key: rapid.StringN(1, 50, 200).Draw(t, "key"), Value: rapid.SliceOf(rapid.Byte()).Draw(t, "value"),
			Expect: rapid.Uint64().Draw(t, "expect"), TTL: rapid.Int64Range(0, 1<<30).Draw(t, "ttl"), Delete: rapid.Bool().Draw(t, "delete"),
		}
		got, err := call.DecodeMutation(m.Encode())
		if m.Delete {
			m.Value = nil
		}
		if err != nil || !cmp.Equal(got, m, cmp.Comparer(bytes.Equal)) {
			t.Fatalf("got %+v, %v; want %+v", got, err, m)
		}
	})
}

func FuzzDecode(f *testing.F) {
	f.Add(call.Request{Kind: call.Write, Lineage: "l1", Body: []byte("x")}.Encode())
	f.Add(call.Answer{Status: call.Conflict, Revision: 300}.Encode())
	f.Add(call.Reach{Eligible: true, Term: 3, Index: 300}.Encode())
	f.Fuzz(func(_ *testing.T, b []byte) {
		_, _ = call.DecodeRequest(b)
		_, _ = call.DecodeAnswer(b)
		_, _ = call.DecodeReach(b)
		_, _ = call.DecodeMutation(b)
		_, _, _ = call.TakeName(b)
	})
}
