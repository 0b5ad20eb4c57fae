package state

import (
	"bytes"
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"github.com/podman-swarm/podman-swarm/internal/hlc"
)

var emptyIsNil = cmp.Comparer(func(a, b []byte) bool { return bytes.Equal(a, b) })

func listView(v View, from, end string) []Entry {
	var out []Entry
	v.Ascend(from, end, func(e *Entry) bool { out = append(out, *e); return true })
	return out
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

func FuzzPeerMessages(f *testing.F) {
	f.Add([]byte{wireVersion, askWrite, 0, 1, 0, 2, '/', 'k', 'v'})
	f.Add(encodeAnswer(Result{Revision: 7, Entry: &Entry{Key: "/k", CreateRevision: 1, ModRevision: 1}}, nil))
	f.Fuzz(func(_ *testing.T, b []byte) {
		_, _ = decodeAnswer(b)
		_, _ = decodeWrite(b)
	})
}
