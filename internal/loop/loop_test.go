package loop_test

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/goleak"

	"github.com/podman-swarm/podman-swarm/internal/loop"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// pass lets virtual time pass.
func pass(d time.Duration) { <-time.After(d) }

// start runs the loop and returns a function that stops it and waits for the end of Run.
func start(t *testing.T, l *loop.Loop) func() {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	var done sync.WaitGroup
	done.Go(func() { l.Run(ctx) })
	return func() {
		cancel()
		done.Wait()
	}
}

func TestRetriesWithGrowingDelayUntilSuccess(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		began := time.Now()
		var calls []time.Duration
		l := loop.New("retry", func(context.Context, string) error {
			calls = append(calls, time.Since(began))
			if len(calls) < 5 {
				return errors.New("not yet")
			}
			return nil
		}, loop.Options{BaseDelay: time.Second, MaxDelay: 4 * time.Second})
		stop := start(t, l)
		l.Add("a")
		pass(time.Hour)
		stop()
		want := []time.Duration{0, 1 * time.Second, 3 * time.Second, 7 * time.Second, 11 * time.Second}
		if fmt.Sprint(calls) != fmt.Sprint(want) {
			t.Errorf("called at %v, want %v", calls, want)
		}
	})
}

func TestSuccessForgetsEarlierErrors(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var began time.Time
		var calls []time.Duration
		fail := true
		l := loop.New("forget", func(context.Context, string) error {
			calls = append(calls, time.Since(began))
			if fail = !fail; !fail {
				return errors.New("every other time")
			}
			return nil
		}, loop.Options{BaseDelay: time.Second})
		stop := start(t, l)
		for range 3 {
			began = time.Now()
			l.Add("a")
			pass(time.Minute)
		}
		stop()
		if got, want := fmt.Sprint(calls), "[0s 1s 0s 1s 0s 1s]"; got != want {
			t.Errorf("called at %v, want %v", got, want)
		}
	})
}

func TestOneKeyIsNeverReconciledTwiceAtOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var inside, most, calls atomic.Int32
		perKey := map[string]*atomic.Int32{"a": {}, "b": {}, "c": {}}
		l := loop.New("serial", func(_ context.Context, key string) error {
			if perKey[key].Add(1) > 1 {
				t.Errorf("%s is reconciled twice at once", key)
			}
			most.Store(max(most.Load(), inside.Add(1)))
			calls.Add(1)
			pass(time.Second)
			inside.Add(-1)
			perKey[key].Add(-1)
			return nil
		}, loop.Options{Workers: 8})
		stop := start(t, l)
		for range 10 {
			for key := range perKey {
				l.Add(key)
			}
			pass(100 * time.Millisecond)
		}
		pass(time.Minute)
		stop()
		if most.Load() != 3 {
			t.Errorf("%d keys at once, want 3", most.Load())
		}
		// Each key: once at the start, and once more for all the additions during that second.
		if calls.Load() != 6 {
			t.Errorf("%d calls, want 6", calls.Load())
		}
	})
}

func TestKeysAddedBeforeRunAndBetweenRunsAreKept(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		began := time.Now()
		got := map[string]time.Duration{}
		l := loop.New("early", func(_ context.Context, key string) error {
			got[key] = time.Since(began)
			return nil
		}, loop.Options{})
		l.AddAfter("later", 20*time.Second)
		l.AddAfter("later", 10*time.Second)
		l.AddAfter("later", 30*time.Second)
		l.Add("now")
		pass(4 * time.Second)
		stop := start(t, l)
		pass(time.Minute)
		stop()
		l.Add("between")
		pass(time.Second)
		stop = start(t, l)
		synctest.Wait()
		stop()
		want := map[string]time.Duration{"later": 10 * time.Second, "now": 4 * time.Second, "between": 65 * time.Second}
		if fmt.Sprint(got) != fmt.Sprint(want) {
			t.Errorf("reconciled at %v, want %v", got, want)
		}
	})
}

func TestRunWaitsForTheCallUnderWayAndDropsTheRest(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var calls []string
		l := loop.New("stop", func(ctx context.Context, key string) error {
			<-ctx.Done()
			pass(time.Second)
			calls = append(calls, key)
			return ctx.Err()
		}, loop.Options{})
		stop := start(t, l)
		l.Add("a")
		synctest.Wait()
		l.Add("b")
		stop()
		if fmt.Sprint(calls) != "[a]" {
			t.Errorf("reconciled %v, want [a] to have ended when Run returns and b to be dropped", calls)
		}
	})
}

func TestSecondRunPanics(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := loop.New("twice", func(context.Context, string) error { return nil }, loop.Options{})
		stop := start(t, l)
		defer stop()
		synctest.Wait()
		defer func() {
			if recover() == nil {
				t.Error("a second Run beside the first did not panic")
			}
		}()
		l.Run(t.Context())
	})
}
