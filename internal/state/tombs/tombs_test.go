package tombs

import (
	"cmp"
	"fmt"
	"maps"
	"slices"
	"testing"
	"time"

	"github.com/google/btree"
	"pgregory.net/rapid"

	"github.com/podman-swarm/podman-swarm/internal/hlc"
)

func list(t *btree.BTreeG[*Tomb]) []Tomb {
	out := []Tomb{}
	t.Ascend(func(t *Tomb) bool { out = append(out, *t); return true })
	return out
}

// The set is a map of which the oldest go when there are too many or they are too old, and an image
// of it does not change.
func TestSetIsItsModel(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		const limit = 4
		x, model := New(limit), map[string]Tomb{}
		newest := hlc.Stamp(0)
		var images []*btree.BTreeG[*Tomb]
		var seen [][]Tomb
		inOrder := func() []Tomb {
			return slices.AppendSeq([]Tomb{}, slices.Values(slices.SortedFunc(maps.Values(model), func(a, b Tomb) int {
				return cmp.Or(cmp.Compare(a.Stamp, b.Stamp), cmp.Compare(a.Key, b.Key))
			})))
		}
		key := rapid.StringMatching(`[a-g]`)
		day := func(label string) hlc.Stamp {
			days := rapid.IntRange(0, 30).Draw(t, label)
			return hlc.At(time.Unix(0, 0).Add(time.Duration(days) * 24 * time.Hour))
		}
		t.Repeat(map[string]func(*rapid.T){
			"add": func(t *rapid.T) {
				one := Tomb{Key: key.Draw(t, "key"), Stamp: day("stamp"), Revision: rapid.Uint64().Draw(t, "revision")}
				x.Add(&one)
				model[one.Key] = one
				if len(model) > limit {
					delete(model, inOrder()[0].Key)
				}
			},
			"drop": func(t *rapid.T) {
				k := key.Draw(t, "key")
				x.Drop(k)
				delete(model, k)
			},
			"pass": func(t *rapid.T) {
				from, before := newest, x.Horizon
				newest = max(newest, day("newest"))
				x.Pass(from, newest)
				if x.Horizon < before || x.Horizon > newest.Back(Age) || from > 0 && x.Horizon.Back(MaxStep) > before {
					t.Fatalf("the horizon went from %v to %v with a write of %v", before, x.Horizon, newest)
				}
				maps.DeleteFunc(model, func(_ string, one Tomb) bool { return one.Stamp < x.Horizon })
			},
			"image": func(*rapid.T) { images, seen = append(images, x.Image()), append(seen, inOrder()) },
			"": func(t *rapid.T) {
				if got, want := list(x.Image()), inOrder(); !slices.Equal(got, want) {
					t.Fatalf("got %v, want %v", got, want)
				}
				for k := 'a'; k <= 'g'; k++ {
					one, want := x.Get(string(k)), model[string(k)]
					if (one == nil) != (want.Key == "") || one != nil && *one != want {
						t.Fatalf("%c is %v, want %v", k, one, want)
					}
				}
				for i, image := range images {
					if !slices.Equal(list(image), seen[i]) {
						t.Fatalf("image %d is %v, was %v", i, list(image), seen[i])
					}
				}
			},
		})
	})
}

// The horizon is a fixed distance behind the newest stamp as long as no clock leaps. A leap moves it a
// little; after it, the distance is what it was then.
func TestHorizonDoesNotLeap(t *testing.T) {
	x := New(Max)
	at := hlc.At(time.Unix(1_800_000_000, 0))
	pass := func(d time.Duration) {
		next := at + hlc.Stamp(d/time.Millisecond)<<16
		x.Pass(at, next)
		at = next
	}
	x.Pass(0, at)
	for range 100 {
		pass(MaxStep)
		if x.Horizon != at.Back(Age) {
			t.Fatalf("horizon %v, newest %v", x.Horizon, at)
		}
	}
	for _, leap := range []time.Duration{2 * MaxStep, Age + 24*time.Hour, 10 * 365 * 24 * time.Hour} {
		before := x.Horizon
		pass(leap)
		if x.Horizon.Back(MaxStep) != before {
			t.Errorf("a leap of %v moves the horizon from %v to %v", leap, before, x.Horizon)
		}
		distance := at - x.Horizon
		for range 100 {
			pass(time.Minute)
		}
		if at-x.Horizon != distance {
			t.Errorf("after a leap of %v the horizon %v does not keep its distance to %v", leap, x.Horizon, at)
		}
	}
	// What came without a Pass is made up for when it is little.
	y := New(Max)
	y.Pass(0, at)
	y.Pass(at+1000, at+2000)
	if y.Horizon != (at + 2000).Back(Age) {
		t.Errorf("horizon %v, newest %v", y.Horizon, at+2000)
	}
}

// A full set of keys as Kubernetes has them, where every deletion pushes out another.
func BenchmarkAddToFull(b *testing.B) {
	x := New(Max)
	keys := make([]string, 2*Max)
	for i := range keys {
		keys[i] = fmt.Sprintf("/registry/pods/namespace-%d/deployment-7f9c%d", i%20, i)
	}
	add := func(i int) { x.Add(&Tomb{Key: keys[i%len(keys)], Stamp: hlc.Stamp(i), Revision: uint64(i)}) }
	for i := range Max {
		add(i)
	}
	b.ReportAllocs()
	i := Max
	for b.Loop() {
		add(i)
		x.Pass(hlc.Stamp(i-1), hlc.Stamp(i))
		i++
	}
}
