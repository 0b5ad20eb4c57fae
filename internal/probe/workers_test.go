package probe

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
)

// bench is a world of containers whose exec probes answer as told, in virtual time.
type bench struct {
	*Workers
	t      *testing.T
	start  time.Time
	mu     sync.Mutex
	answer map[string]func() (int, error) // by command
	log    []string                       // "<seconds> <what>"
	probes []string                       // "<seconds> <command>"
	flying int
	peak   int
	took   time.Duration // of each probe
}

func newBench(t *testing.T, parallel int) *bench {
	t.Helper()
	b := &bench{t: t, start: time.Now(), answer: map[string]func() (int, error){}}
	log := slog.New(slog.DiscardHandler)
	p := New(Config{Log: log, Exec: func(ctx context.Context, _ string, cmd []string) (int, []byte, error) {
		b.mu.Lock()
		b.probes = append(b.probes, b.at(cmd[0]))
		b.flying++
		b.peak = max(b.peak, b.flying)
		answer := b.answer[cmd[0]]
		b.mu.Unlock()
		defer func() {
			b.mu.Lock()
			b.flying--
			b.mu.Unlock()
		}()
		if b.took > 0 {
			select {
			case <-time.After(b.took):
			case <-ctx.Done():
				return 0, nil, ctx.Err()
			}
		}
		if answer == nil {
			return 0, nil, nil
		}
		code, err := answer()
		return code, []byte("said " + cmd[0]), err
	}})
	b.Workers = NewWorkers(WorkersConfig{
		Prober: p, Parallel: parallel, Log: log,
		OnTransition: func(tr Transition) {
			b.note(fmt.Sprintf("%s %s %s", tr.Target.Container.Name, tr.Kind, tr.Result))
		},
		OnEvent: func(e Event) { b.note(e.Reason + " " + e.Message) },
	})
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error)
	go func() { done <- b.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; !errors.Is(err, context.Canceled) {
			t.Errorf("Run = %v", err)
		}
	})
	return b
}

// pass lets virtual time pass.
func pass(d time.Duration) { <-time.After(d) }

func (b *bench) at(what string) string {
	return fmt.Sprintf("%g %s", time.Since(b.start).Seconds(), what)
}

func (b *bench) note(what string) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.log = append(b.log, b.at(what))
}

// want checks and forgets what was told since the last time.
func (b *bench) want(what *[]string, want ...string) {
	b.t.Helper()
	synctest.Wait()
	b.mu.Lock()
	defer b.mu.Unlock()
	if !slices.Equal(*what, want) {
		b.t.Errorf("got  %q\nwant %q", *what, want)
	}
	*what = nil
}

func (b *bench) answers(cmd string, code int) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.answer[cmd] = func() (int, error) { return code, nil }
}

func execProbe(cmd string, f func(*corev1.Probe)) *corev1.Probe {
	p := &corev1.Probe{
		ProbeHandler:   corev1.ProbeHandler{Exec: &corev1.ExecAction{Command: []string{cmd}}},
		TimeoutSeconds: 1, PeriodSeconds: 10, SuccessThreshold: 1, FailureThreshold: 3,
	}
	if f != nil {
		f(p)
	}
	return p
}

func target(id string, c corev1.Container) Target {
	c.Name = "c"
	return Target{
		Pod: &corev1.Pod{
			ObjectMeta: metav1.ObjectMeta{Namespace: "ns", Name: "p", UID: "u"},
			Spec:       corev1.PodSpec{Containers: []corev1.Container{c}},
		},
		Container: &c, ContainerID: id, PodIP: "10.0.0.1", StartedAt: time.Now(),
	}
}

func TestReadinessTiming(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t, 0)
		tg := target("1", corev1.Container{ReadinessProbe: execProbe("r", func(p *corev1.Probe) {
			p.InitialDelaySeconds, p.PeriodSeconds, p.SuccessThreshold, p.FailureThreshold = 3, 5, 2, 2
		})})
		b.Add(tg)
		pass(20 * time.Second)
		b.want(&b.probes, "3 r", "8 r", "13 r", "18 r")
		b.want(&b.log, "8 c Readiness success") // the second success in a row
		if !b.Ready("u", tg.Container, "1") || b.Ready("u", tg.Container, "2") {
			t.Error("Ready: want true for container 1 only")
		}
		b.answers("r", 1)
		pass(10 * time.Second) // 30
		b.want(&b.log, "23 Unhealthy Readiness probe failed: said r",
			"28 Unhealthy Readiness probe failed: said r", "28 c Readiness failure")
		if b.Ready("u", tg.Container, "1") {
			t.Error("still ready after two failures")
		}
		b.answers("r", 0)
		pass(5 * time.Second) // 35: one success is not enough
		b.want(&b.log)
		b.Remove("u", "c")
		b.probes = nil
		pass(time.Minute)
		b.want(&b.probes)
	})
}

func TestLivenessKillsOnceAndBeginsAgainWithNewContainer(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t, 0)
		c := corev1.Container{LivenessProbe: execProbe("l", nil)}
		b.answers("l", 1)
		b.Add(target("1", c))
		pass(2 * time.Minute)
		b.want(&b.probes, "0 l", "10 l", "20 l")
		b.want(&b.log, "0 Unhealthy Liveness probe failed: said l", "10 Unhealthy Liveness probe failed: said l",
			"20 Unhealthy Liveness probe failed: said l", "20 c Liveness failure")
		b.Add(target("1", c)) // an update of the same container changes nothing
		pass(time.Minute)
		b.want(&b.probes)
		b.Add(target("2", c)) // at 180
		pass(25 * time.Second)
		b.want(&b.probes, "180 l", "190 l", "200 l")
	})
}

func TestStartupGatesTheOthers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t, 0)
		tg := target("1", corev1.Container{
			StartupProbe: execProbe("s", func(p *corev1.Probe) {
				p.PeriodSeconds, p.FailureThreshold = 2, 30
			}),
			LivenessProbe:  execProbe("l", nil),
			ReadinessProbe: execProbe("r", func(p *corev1.Probe) { p.InitialDelaySeconds = 7 }),
		})
		b.answers("s", 1)
		b.Add(tg)
		pass(3 * time.Second)
		b.want(&b.probes, "0 s", "2 s")
		if b.Started("u", tg.Container, "1") || b.Ready("u", tg.Container, "1") {
			t.Error("started or ready before the startup probe succeeded")
		}
		b.answers("s", 0)
		b.log = nil
		pass(5 * time.Second) // 8
		b.want(&b.probes, "4 s", "4 l", "7 r")
		b.want(&b.log, "4 c Startup success", "7 c Readiness success")
		if !b.Started("u", tg.Container, "1") || !b.Ready("u", tg.Container, "1") {
			t.Error("not started or not ready")
		}
	})
}

func TestStartupFailureReportsGrace(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t, 0)
		grace := int64(4)
		var got *int64
		b.cfg.OnTransition = func(tr Transition) { got = tr.Grace }
		b.answers("s", 1)
		b.Add(target("1", corev1.Container{StartupProbe: execProbe("s", func(p *corev1.Probe) {
			p.TerminationGracePeriodSeconds, p.FailureThreshold = &grace, 1
		})}))
		pass(time.Minute)
		b.want(&b.probes, "0 s")
		if got == nil || *got != 4 {
			t.Errorf("grace = %v, want 4", got)
		}
	})
}

func TestTimeoutAndErrors(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t, 0)
		b.took = 5 * time.Second
		b.Add(target("1", corev1.Container{ReadinessProbe: execProbe("slow", func(p *corev1.Probe) {
			p.TimeoutSeconds, p.FailureThreshold = 2, 1
		})}))
		pass(5 * time.Second)
		b.want(&b.log, `2 Unhealthy Readiness probe failed: command timed out: "slow" timed out after 2s`)
		b.Remove("u", "c")
		b.took = 0
		b.answer["broken"] = func() (int, error) { return 0, errors.New("no such container") }
		b.Add(target("2", corev1.Container{LivenessProbe: execProbe("broken", func(p *corev1.Probe) {
			p.FailureThreshold = 1
		})}))
		b.probes = nil
		pass(5 * time.Second)
		// Tried three times, told, and not counted as a failure.
		b.want(&b.probes, "5 broken", "5 broken", "5 broken")
		b.want(&b.log,
			"5 Unhealthy Liveness probe errored and resulted in unknown state: no such container")
	})
}

func TestTerminatingKeepsReadiness(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t, 0)
		tg := target("1", corev1.Container{
			LivenessProbe: execProbe("l", nil), ReadinessProbe: execProbe("r", nil),
		})
		b.Add(tg)
		pass(time.Second)
		b.probes = nil
		b.Terminating("u")
		pass(20 * time.Second)
		b.want(&b.probes, "10 r", "20 r")

		gated := target("2", corev1.Container{StartupProbe: execProbe("s", nil), ReadinessProbe: execProbe("r", nil)})
		b.answers("s", 1)
		b.Add(gated)
		pass(time.Second)
		b.probes = nil
		b.Terminating("u")
		pass(time.Second)
		b.want(&b.probes, "22 r")
		b.RemovePod("u")
	})
}

func TestAdoptionSpreadsAndDoesNotFlap(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t, 0)
		for i := range 100 {
			tg := target(fmt.Sprint("id", i), corev1.Container{
				StartupProbe: execProbe("s", nil), ReadinessProbe: execProbe("r", nil),
			})
			tg.Pod.UID = types.UID(fmt.Sprint(i))
			tg.StartedAt = time.Now().Add(-time.Hour)
			tg.Started, tg.Ready = true, true
			b.Add(tg)
			if !b.Ready(tg.Pod.UID, tg.Container, tg.ContainerID) {
				t.Fatal("a ready container lost its readiness by adoption")
			}
		}
		pass(10 * time.Second)
		synctest.Wait()
		if len(b.probes) != 100 || slices.Contains(b.probes, "0 s") {
			t.Errorf("%d probes in the first period, want 100 and no startup probe", len(b.probes))
		}
		if b.peak > 5 {
			t.Errorf("%d probes at the same instant", b.peak)
		}
		b.want(&b.log)
	})
}

func TestParallelIsBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t, 3)
		b.took = time.Second
		for i := range 9 {
			tg := target(fmt.Sprint(i), corev1.Container{LivenessProbe: execProbe("l", func(p *corev1.Probe) {
				p.TimeoutSeconds = 10
			})})
			tg.Pod.UID = types.UID(fmt.Sprint(i))
			b.Add(tg)
		}
		pass(4 * time.Second)
		synctest.Wait()
		if b.peak != 3 || len(b.probes) != 9 {
			t.Errorf("peak %d, probes %d; want 3 at once and all 9 made", b.peak, len(b.probes))
		}
	})
}

func TestRemoveCancelsAProbeUnderWay(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t, 0)
		b.took = time.Hour
		b.Add(target("1", corev1.Container{LivenessProbe: execProbe("l", func(p *corev1.Probe) {
			p.TimeoutSeconds = 7200
		})}))
		synctest.Wait()
		b.Remove("u", "c")
		b.want(&b.log) // what it found is nobody's business any more
		b.mu.Lock()
		defer b.mu.Unlock()
		if b.flying != 0 {
			t.Error("the probe goes on after Remove")
		}
	})
}
