package hlc_test

import (
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/podman-swarm/podman-swarm/internal/hlc"
)

func TestStampParts(t *testing.T) {
	at := time.Date(2026, 11, 23, 12, 0, 0, 7_900_000, time.UTC)
	s := hlc.At(at) + 3
	if got, want := s.Time(), at.Truncate(time.Millisecond); !got.Equal(want) {
		t.Errorf("Time() = %v, want %v", got, want)
	}
	if s.Counter() != 3 {
		t.Errorf("Counter() = %d, want 3", s.Counter())
	}
	if got, want := s.String(), "2026-11-23T12:00:00.007Z#3"; got != want {
		t.Errorf("String() = %q, want %q", got, want)
	}
	if got, want := s.Back(time.Second), hlc.At(at.Add(-time.Second))+3; got != want {
		t.Errorf("Back(1 s) = %v, want %v", got, want)
	}
	if s.Back(100*365*24*time.Hour) != 0 || hlc.Stamp(5).Back(time.Millisecond) != 0 {
		t.Error("nothing is older than the zero stamp")
	}
	if hlc.At(time.Unix(-5, 0)) != 0 {
		t.Error("a time before 1970 must give the zero stamp")
	}
}

func TestCounterSpillsIntoTime(t *testing.T) {
	c := hlc.New(func() time.Time { return time.Unix(1, 0) })
	last := c.Now()
	for range 1 << 17 {
		next := c.Now()
		if next <= last {
			t.Fatalf("%v after %v", next, last)
		}
		last = next
	}
}

// Two clocks whose wall clocks jump about exchange stamps: every stamp made is newer than all
// that its clock made or saw, and none is older than the wall clock of its making.
func TestClocksNeverGoBack(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		var walls [2]time.Time
		var clocks [2]*hlc.Clock
		var seen [2]hlc.Stamp
		for i := range clocks {
			clocks[i] = hlc.New(func() time.Time { return walls[i] })
		}
		for range rapid.IntRange(1, 60).Draw(t, "steps") {
			i := rapid.IntRange(0, 1).Draw(t, "clock")
			walls[i] = time.UnixMilli(rapid.Int64Range(-10, 100).Draw(t, "wall"))
			if rapid.Bool().Draw(t, "observe") {
				clocks[i].Observe(seen[1-i])
				seen[i] = max(seen[i], seen[1-i])
				continue
			}
			s := clocks[i].Now()
			if s <= seen[i] || s < hlc.At(walls[i]) {
				t.Fatalf("clock %d made %v after %v at %v", i, s, seen[i], walls[i])
			}
			seen[i] = s
		}
	})
}
