package liveness

import (
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"
)

func TestJudge(t *testing.T) {
	t0 := time.Unix(1000, 0)
	at := func(s int) time.Time { return t0.Add(time.Duration(s) * time.Second) }
	dead := Sighting{Dead: true, Since: t0}
	fenced := Sighting{Dead: true, Since: t0, Fenced: true}
	sure := Sighting{Dead: true, Since: t0, Sure: at(100)}
	tests := map[string]struct {
		seen         Sighting
		known, alive int
		now          time.Time
		evict, force bool
		again        time.Time
	}{
		"alive":                                {Sighting{}, 3, 3, at(0), false, false, time.Time{}},
		"alive, on a side that sees few":       {Sighting{}, 5, 1, at(500), false, false, time.Time{}},
		"alive and fenced":                     {Sighting{Fenced: true}, 3, 3, at(0), false, false, time.Time{}},
		"one of three, just now":               {dead, 3, 2, at(0), true, false, at(45)},
		"one of three, nearly long enough":     {dead, 3, 2, at(44), true, false, at(45)},
		"one of three, long enough":            {dead, 3, 2, at(45), true, true, time.Time{}},
		"dead for long, a majority for 44 s":   {sure, 3, 2, at(144), true, false, at(145)},
		"dead for long, a majority for 45 s":   {sure, 3, 2, at(145), true, true, time.Time{}},
		"one of two, just now":                 {dead, 2, 1, at(0), true, false, time.Time{}},
		"one of two, an hour":                  {dead, 2, 1, at(3600), true, false, time.Time{}},
		"one of two, fenced":                   {fenced, 2, 1, at(0), true, true, time.Time{}},
		"two of four: half, no majority":       {dead, 4, 2, at(3600), true, false, time.Time{}},
		"two of three, just now":               {dead, 3, 1, at(0), false, false, at(60)},
		"two of three, nearly a minute":        {dead, 3, 1, at(59), false, false, at(60)},
		"two of three, a minute":               {dead, 3, 1, at(60), true, false, time.Time{}},
		"two of three, fenced":                 {fenced, 3, 1, at(0), true, true, time.Time{}},
		"four of five":                         {dead, 5, 1, at(30), false, false, at(60)},
		"a clock that went back, large side":   {dead, 3, 2, at(-5), false, false, at(0)},
		"the only one known is dead elsewhere": {dead, 1, 0, at(0), false, false, at(60)},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			got := Rules{MinorityDelay: time.Minute, ReplaceAfter: 45 * time.Second}.Judge(tt.seen, Census{tt.known, tt.alive}, tt.now)
			want := Verdict{Sighting: tt.seen, Evict: tt.evict, Force: tt.force, Again: tt.again}
			if diff := cmp.Diff(want, got); diff != "" {
				t.Errorf("verdict (-want +got):\n%s", diff)
			}
		})
	}
}

// A large cluster takes longer to find out that it is cut off.
func TestJudgeWaitsLongerAmongMany(t *testing.T) {
	seen := Sighting{Dead: true, Since: time.Unix(1000, 0)}
	for known, want := range map[int]time.Duration{3: 46800 * time.Millisecond, 50: 75 * time.Second} {
		if got := DefaultRules().Judge(seen, Census{known, known - 1}, seen.Since).Again.Sub(seen.Since); got != want {
			t.Errorf("%d nodes wait %v, want %v", known, got, want)
		}
	}
}

// Whatever the partition, at most one side may take unfenced pods as ended, and looking again when
// told to is enough to see every change.
func TestJudgeProperties(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		known := rapid.IntRange(1, 50).Draw(t, "known")
		here := rapid.IntRange(0, known).Draw(t, "here")
		there := rapid.IntRange(0, known-here).Draw(t, "there")
		rules, t0 := DefaultRules(), time.Unix(1000, 0)
		seen := Sighting{Dead: true, Since: t0}
		now := t0.Add(time.Duration(rapid.IntRange(0, 200).Draw(t, "after")) * time.Second)
		a, b := rules.Judge(seen, Census{known, here}, now), rules.Judge(seen, Census{known, there}, now)
		if a.Force && b.Force {
			t.Fatalf("both %d and %d of %d end pods of the other", here, there, known)
		}
		if a.Force && !a.Evict {
			t.Fatal("ended but not replaced")
		}
		next := a.Again
		if next.IsZero() {
			next = now.Add(time.Hour)
		} else if !next.After(now) {
			t.Fatalf("told at %v to look again at %v", now, next)
		}
		before := rules.Judge(seen, Census{known, here}, next.Add(-time.Nanosecond))
		if before.Evict != a.Evict || before.Force != a.Force {
			t.Fatalf("changes before %v without notice", next)
		}
	})
}
