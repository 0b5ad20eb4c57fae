package journal

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"github.com/podman-swarm/podman-swarm/internal/hlc"
)

func genSide(t *rapid.T) Side {
	s := Side{
		Lineage: rapid.StringN(0, 8, 64).Draw(t, "lineage"),
		Born:    hlc.Stamp(rapid.Uint64().Draw(t, "born")), Stamp: hlc.Stamp(rapid.Uint64().Draw(t, "stamp")),
		Deleted: rapid.Bool().Draw(t, "deleted"), Value: []byte{},
	}
	if !s.Deleted {
		s.Expires = rapid.Int64Range(0, 1<<40).Draw(t, "expires")
		s.Value = rapid.SliceOf(rapid.Byte()).Draw(t, "value")
	}
	return s
}

func TestCodec(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		want := Conflict{
			ID: "id", Key: rapid.StringN(1, 8, 64).Draw(t, "key"), At: rapid.Int64Range(0, 1<<40).Draw(t, "at"),
			Kept: genSide(t), Lost: genSide(t),
		}
		got, err := Decode(Prefix+"id", want.Encode())
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(&want, got); diff != "" {
			t.Fatal(diff)
		}
	})
}

func FuzzDecode(f *testing.F) {
	c := Conflict{Key: "/k", At: 3, Kept: Side{Lineage: "a", Deleted: true}, Lost: Side{Lineage: "b", Stamp: 4, Value: []byte("v"), Expires: 9}}
	f.Add(c.Encode())
	f.Fuzz(func(t *testing.T, b []byte) {
		c, err := Decode(Prefix+"x", b)
		if err != nil {
			return
		}
		again, err := Decode(Prefix+"x", c.Encode())
		if diff := cmp.Diff(c, again); err != nil || diff != "" {
			t.Fatalf("%v, %s", err, diff)
		}
	})
}

func TestRefused(t *testing.T) {
	good := (&Conflict{Key: "/k"}).Encode()
	newer := append([]byte{version + 1}, good[1:]...)
	for name, x := range map[string]struct {
		key   string
		value []byte
		want  string
	}{
		"another key": {"/k", good, "malformed"},
		"empty":       {Prefix + "x", nil, "malformed"},
		"cut short":   {Prefix + "x", good[:len(good)-1], "malformed"},
		"too long":    {Prefix + "x", append(good[:len(good):len(good)], 0), "malformed"},
		"newer":       {Prefix + "x", newer, "newer version"},
	} {
		if _, err := Decode(x.key, x.value); err == nil || !strings.Contains(err.Error(), x.want) || !strings.Contains(err.Error(), x.key) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// The name of a loss is its own, and that of nothing else.
func TestID(t *testing.T) {
	lost := Side{Lineage: "a", Born: 1, Stamp: 0x10, Value: []byte("v")}
	id := ID("/k", lost)
	if !strings.HasPrefix(id, "0000000000000010-") {
		t.Errorf("%s is not in order of its stamp", id)
	}
	same := lost
	same.Lineage, same.Born = "b", 2
	if ID("/k", same) != id {
		t.Error("the same write has two names, since it came by two lineages")
	}
	for name, change := range map[string]func(*Side) string{
		"key":      func(*Side) string { return "/kv" },
		"value":    func(s *Side) string { s.Value = []byte("w"); return "/k" },
		"stamp":    func(s *Side) string { s.Stamp++; return "/k" },
		"deletion": func(s *Side) string { s.Value, s.Deleted = nil, true; return "/k" },
	} {
		other := lost
		if ID(change(&other), other) == id {
			t.Errorf("another %s has the same name", name)
		}
	}
}
