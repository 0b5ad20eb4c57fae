package fence

import (
	"context"
	"errors"
	"log/slog"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

func sights(known, alive int, settled, torn bool) Sight {
	return Sight{Known: known, Alive: alive, Settled: settled, Torn: torn}
}

func TestNext(t *testing.T) {
	t0 := time.Unix(1000, 0)
	type look struct {
		at        int // seconds
		sight     Sight
		cut, hold bool
		again     int // seconds; 0: never
	}
	all, some, two, alone := sights(3, 3, true, false), sights(5, 2, true, false), sights(3, 2, true, false), sights(3, 1, true, false)
	torn, took := sights(3, 3, false, true), sights(7, 4, true, false) // over, 60 s after t0
	took.Until = t0.Add(60 * time.Second)
	for name, looks := range map[string][]look{
		"a cluster of one":                  {{0, sights(1, 1, true, false), false, false, 0}},
		"two, of which one is gone":         {{0, sights(2, 2, true, false), false, false, 0}, {100, sights(2, 1, true, false), false, false, 0}},
		"a majority is enough":              {{0, two, false, false, 0}},
		"half is not":                       {{0, sights(4, 4, true, false), false, false, 0}, {1, sights(4, 2, true, false), false, true, 31}, {31, sights(4, 2, true, false), true, true, 0}},
		"starts among others":               {{0, all, false, false, 0}},
		"starts alone":                      {{0, alone, false, true, 30}, {30, alone, true, true, 0}, {40, all, true, true, 50}, {50, all, false, false, 0}},
		"starts before the others do":       {{0, alone, false, true, 30}, {2, all, false, false, 0}},
		"starts with another history":       {{0, torn, false, true, 1}, {1, all, false, true, 11}, {11, all, false, false, 0}},
		"a short cut":                       {{0, all, false, false, 0}, {10, alone, false, true, 40}, {39, alone, false, true, 40}, {39, two, false, true, 49}, {49, two, false, false, 0}},
		"two short cuts do not add up":      {{0, all, false, false, 0}, {10, alone, false, true, 40}, {39, all, false, true, 49}, {40, alone, false, true, 70}},
		"cut off and back":                  {{0, all, false, false, 0}, {10, alone, false, true, 40}, {40, alone, true, true, 0}, {60, all, true, true, 70}, {70, all, false, false, 0}},
		"back, but lost again":              {{0, alone, false, true, 30}, {30, alone, true, true, 0}, {60, all, true, true, 70}, {65, alone, true, true, 0}, {66, all, true, true, 76}, {76, all, false, false, 0}},
		"back, with a history to merge":     {{0, alone, false, true, 30}, {30, alone, true, true, 0}, {60, torn, true, true, 61}, {80, all, true, true, 90}, {90, all, false, false, 0}},
		"cut off in company":                {{0, sights(5, 5, true, false), false, false, 0}, {1, some, false, true, 31}, {31, some, true, true, 0}},
		"the lost ones have been fenced":    {{0, alone, false, true, 30}, {30, alone, true, true, 0}, {50, sights(1, 1, true, false), true, true, 60}, {60, sights(1, 1, true, false), false, false, 0}},
		"seen again by hearsay, not merged": {{0, all, false, false, 0}, {10, alone, false, true, 40}, {14, torn, false, true, 15}, {39, torn, false, true, 40}, {40, torn, true, true, 41}, {50, all, true, true, 60}, {60, all, false, false, 0}},
		"seen again, merged in time":        {{0, all, false, false, 0}, {10, alone, false, true, 40}, {14, torn, false, true, 15}, {39, all, false, true, 49}, {49, all, false, false, 0}},
		"seen by turns, never merged":       {{0, all, false, false, 0}, {10, alone, false, true, 40}, {14, torn, false, true, 15}, {25, alone, false, true, 40}, {40, alone, true, true, 0}},
		"took over":                         {{0, took, false, true, 60}, {60, took, false, false, 0}},
		"took over, and a short cut":        {{0, took, false, true, 60}, {10, sights(7, 3, true, false), false, true, 40}, {39, took, false, true, 49}, {49, took, false, true, 60}, {60, took, false, false, 0}},
		"took over, and is cut off":         {{0, took, false, true, 60}, {10, sights(7, 3, true, false), false, true, 40}, {40, sights(7, 3, true, false), true, true, 0}},
		"a merge stops nothing by itself":   {{0, all, false, false, 0}, {5, torn, false, true, 6}, {6, all, false, true, 16}, {16, all, false, false, 0}},
	} {
		t.Run(name, func(t *testing.T) {
			var d Decision
			for _, l := range looks {
				var again time.Time
				d, again = d.Next(l.sight, t0.Add(time.Duration(l.at)*time.Second))
				var want time.Time
				if l.again != 0 {
					want = t0.Add(time.Duration(l.again) * time.Second)
				}
				if d.Cut() != l.cut || d.Hold() != l.hold || !again.Equal(want) {
					t.Errorf("at %d s, seeing %+v: cut %v, hold %v, again at %v; want %+v", l.at, l.sight, d.Cut(), d.Hold(), again.Sub(t0), l)
				}
			}
		})
	}
}

// The others count on while an agent is restarted; so does the next one.
func TestTheNextAgentCountsOn(t *testing.T) {
	file, dir := filepath.Join(t.TempDir(), "fence"), t.TempDir()
	now := time.Now()
	alone, all := sights(3, 1, true, false), sights(3, 3, true, false)
	sight := alone
	agent := func(file string) *Fence {
		return New(Config{Sight: func() Sight { return sight }, Now: func() time.Time { return now }, File: file, Log: slog.New(slog.DiscardHandler)})
	}
	agent(file).look(now)
	now = now.Add(20 * time.Second)
	next := agent(file)
	if again := next.look(now); !again.Equal(now.Add(10*time.Second)) || next.Cut() {
		t.Errorf("20 s after it was cut off: cut %t, again in %v", next.Cut(), again.Sub(now))
	}
	now = now.Add(15 * time.Second)
	if next = agent(file); next.look(now).IsZero() != next.Cut() || !next.Cut() {
		t.Error("35 s after it was cut off a new agent does not know it")
	}
	sight = all
	next = agent(file)
	next.look(now)
	sight = alone
	if next = agent(file); next.look(now).IsZero() || next.Cut() {
		t.Error("it was back, and is cut off at once when it is lost again")
	}
	now = now.Add(-time.Hour) // the clock is set back
	if again := agent(file).look(now); !again.Equal(now.Add(CutAfter)) {
		t.Errorf("with a loss in the future it looks again in %v", again.Sub(now))
	}
	for name, broken := range map[string]string{"cannot be read or written": dir, "says nothing": file} {
		if err := os.WriteFile(file, []byte("soon"), 0o600); err != nil {
			t.Fatal(err)
		}
		if again := agent(broken).look(now); !again.Equal(now.Add(CutAfter)) {
			t.Errorf("a memory that %s: it looks again in %v", name, again.Sub(now))
		}
	}
}

func TestFence(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var mu sync.Mutex
		sight, seen := sights(3, 3, true, false), make(chan struct{})
		f := New(Config{
			Sight: func() Sight { mu.Lock(); defer mu.Unlock(); return sight },
			Seen:  func() <-chan struct{} { mu.Lock(); defer mu.Unlock(); return seen },
			Now:   time.Now,
			File:  filepath.Join(t.TempDir(), "fence"),
			Log:   slog.New(slog.DiscardHandler),
		})
		see := func(s Sight) {
			mu.Lock()
			defer mu.Unlock()
			sight = s
			close(seen)
			seen = make(chan struct{})
		}
		if f.Cut() || !f.Hold() {
			t.Error("before it has looked it must hold, and stop nothing")
		}
		ctx, cancel := context.WithCancel(t.Context())
		var g sync.WaitGroup
		g.Go(func() {
			if err := f.Run(ctx); !errors.Is(err, context.Canceled) {
				t.Error(err)
			}
		})
		synctest.Wait()
		if f.Hold() {
			t.Error("among others it holds")
		}
		changed, began := f.Changed(), time.Now()
		see(sights(3, 1, true, false))
		<-changed
		if !f.Hold() || f.Cut() {
			t.Error("what is new is not started by a minority, and nothing is stopped yet")
		}
		<-f.Changed()
		if took := time.Since(began); took != CutAfter || !f.Cut() {
			t.Errorf("after %v: cut is %v", took, f.Cut())
		}
		changed, began = f.Changed(), time.Now()
		see(sights(3, 3, true, false))
		<-changed
		if took := time.Since(began); took != BackAfter || f.Cut() || f.Hold() {
			t.Errorf("after %v: cut is %v", took, f.Cut())
		}
		cancel()
		g.Wait()
	})
}
