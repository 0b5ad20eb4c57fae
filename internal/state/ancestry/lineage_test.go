package ancestry

import (
	"bytes"
	"testing"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"github.com/podman-swarm/podman-swarm/internal/hlc"
)

func at(rev uint64) Point { return Point{Stamp: hlc.Stamp(rev), Revision: rev} }

// a --+--------------- a
//
//	10: b --+------- b
//	    20: c ------ c
//	15: d ---------- d
func family() map[string]Lineage {
	return map[string]Lineage{
		"a": {ID: "a", Born: 1},
		"b": {ID: "b", Born: 11, Parents: []Ancestor{{"a", at(10)}}},
		"c": {ID: "c", Born: 21, Parents: []Ancestor{{"b", at(20)}, {"a", at(10)}}},
		"d": {ID: "d", Born: 21, Parents: []Ancestor{{"a", at(15)}}},
		"s": {ID: "s", Born: 1},
	}
}

func TestCommon(t *testing.T) {
	all := family()
	for _, x := range []struct {
		a, b string
		want uint64
	}{
		{"a", "b", 10},
		{"a", "c", 10},
		{"b", "c", 20},
		{"a", "d", 15},
		{"d", "b", 10},
		{"c", "d", 10},
	} {
		for _, pair := range [][2]string{{x.a, x.b}, {x.b, x.a}} {
			if p, ok := Common(all[pair[0]], all[pair[1]]); !ok || p != at(x.want) {
				t.Errorf("%v parted at %v, %v, want %d", pair, p, ok, x.want)
			}
		}
	}
	if p, ok := Common(all["b"], all["b"]); !ok || p.Revision != ^uint64(0) {
		t.Errorf("a lineage parted from itself at %v, %v", p, ok)
	}
	if p, ok := Common(all["b"], all["s"]); ok {
		t.Errorf("strangers parted at %v", p)
	}
}

func TestSince(t *testing.T) {
	all := family()
	merged := func(to, id string, rev uint64) Lineage { return all[to].With(Merged{ID: id, Point: at(rev)}) }
	for name, x := range map[string]struct {
		to, from Lineage
		want     uint64
	}{
		"nothing was merged":                     {all["a"], all["c"], 10},
		"some of it was merged":                  {merged("a", "c", 30), all["c"], 30},
		"its parent was merged before it parted": {merged("a", "b", 17), all["c"], 17},
		"its parent was merged after it parted":  {merged("a", "b", 25), all["c"], 20},
		"a merge that has not ended":             {merged("a", "c", 0), all["c"], 10},
		"it lives on after it was merged":        {merged("d", "a", 40), all["a"], 40},
		"a cousin was merged":                    {merged("a", "d", 40), all["c"], 10},
	} {
		if p, ok := Since(x.to, x.from); !ok || p != at(x.want) {
			t.Errorf("%s: since %v, %v, want %d", name, p, ok, x.want)
		}
	}
	if _, ok := Since(all["a"], all["s"]); ok {
		t.Error("strangers have nothing to hand over")
	}
}

func TestOlder(t *testing.T) {
	all := family()
	if !Older(all["a"], all["b"]) || Older(all["b"], all["a"]) || !Older(all["c"], all["d"]) || Older(all["d"], all["c"]) || Older(all["a"], all["a"]) {
		t.Error("not by birth, then name")
	}
}

// Lineages are values: what was read before does not change.
func TestWithAndInheritKeepTheirInput(t *testing.T) {
	l := Lineage{ID: "l"}
	for _, id := range []string{"x", "y", "x"} {
		old := l
		before := old.Append(nil)
		m := l.Of(id).Clone(id)
		m.Revision++
		m.Note(m.Revision * 10)
		l = l.With(m)
		if !bytes.Equal(before, old.Append(nil)) {
			t.Fatal("the old value has changed")
		}
	}
	if x := l.Of("x"); x.Revision != 2 || !x.Holds(10) || !x.Holds(20) || x.Holds(15) || l.Of("z").Holds(1) {
		t.Errorf("%+v", l)
	}
	from := Lineage{ID: "f", Merged: []Merged{{ID: "x", Point: at(1)}, {ID: "y", Point: at(7), Newest: 8}, {ID: "l", Point: at(9)}}}
	heir := l.Inherit(from)
	if heir.Of("x").Revision != 2 || heir.Of("y").Point != at(7) || heir.Of("y").Newest != 8 || !heir.Of("y").Holds(10) || heir.Of("l") != nil {
		t.Errorf("%+v", heir)
	}
	if l.Of("y").Revision != 1 {
		t.Error("the old value has changed")
	}
}

func TestBounds(t *testing.T) {
	l, m := Lineage{ID: "l"}, Merged{ID: "m"}
	for i := range uint64(2 * maxSpans) {
		m.Note(2*i + 1)
	}
	if m.Holds(1) || !m.Holds(4*maxSpans-1) {
		t.Error("not the newest are kept")
	}
	l = l.With(m)
	for i := range 2 * MaxAncestors {
		l = l.With(Merged{ID: string(rune('a'+i%26)) + string(rune('a'+i/26%26)) + string(rune('a'+i/676))})
	}
	if len(l.Merged) != MaxAncestors || l.Of("m") != nil {
		t.Errorf("%d merges are kept", len(l.Merged))
	}
	if _, err := DecodeLineage(l.Append(nil)); err != nil {
		t.Error(err)
	}
}

func genLineage(t *rapid.T) Lineage {
	id := rapid.StringN(0, 8, MaxID)
	point := rapid.Custom(func(t *rapid.T) Point {
		return Point{Stamp: hlc.Stamp(rapid.Uint64().Draw(t, "stamp")), Revision: rapid.Uint64().Draw(t, "revision")}
	})
	l := Lineage{ID: id.Draw(t, "id"), Born: hlc.Stamp(rapid.Uint64().Draw(t, "born"))}
	for range rapid.IntRange(0, 3).Draw(t, "parents") {
		l.Parents = append(l.Parents, Ancestor{id.Draw(t, "parent"), point.Draw(t, "point")})
	}
	for range rapid.IntRange(0, 3).Draw(t, "merges") {
		m := Merged{ID: id.Draw(t, "other"), Point: point.Draw(t, "point"), Newest: rapid.Uint64().Draw(t, "newest")}
		rev := uint64(0)
		for range rapid.IntRange(0, 5).Draw(t, "notes") {
			rev += rapid.Uint64Range(1, 3).Draw(t, "step")
			m.Note(rev)
		}
		l.Merged = append(l.Merged, m)
	}
	return l
}

func TestLineageCodec(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		want := genLineage(t)
		got, err := DecodeLineage(want.Append(nil))
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(want, got, cmp.AllowUnexported(Merged{}, span{})); diff != "" {
			t.Fatal(diff)
		}
	})
}

func FuzzDecodeLineage(f *testing.F) {
	m := Merged{ID: "m", Point: at(3), Newest: 4}
	m.Note(7)
	m.Note(9)
	f.Add(family()["c"].With(m).Append(nil))
	f.Fuzz(func(t *testing.T, b []byte) {
		l, err := DecodeLineage(b)
		if err != nil {
			return
		}
		again, err := DecodeLineage(l.Append(nil))
		if diff := cmp.Diff(l, again, cmp.AllowUnexported(Merged{}, span{})); err != nil || diff != "" {
			t.Fatalf("%v, %s", err, diff)
		}
	})
}
