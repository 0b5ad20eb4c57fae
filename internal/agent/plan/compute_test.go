package plan

import (
	"fmt"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/podman-swarm/podman-swarm/internal/podspec"
)

const boot = "b1"

var t0 = time.Unix(100000, 0)

func makePod(policy corev1.RestartPolicy, inits, containers string) *corev1.Pod {
	p := &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{Name: "p", Namespace: "ns", UID: "u"},
		Spec:       corev1.PodSpec{RestartPolicy: policy},
	}
	for _, n := range strings.Fields(inits) {
		p.Spec.InitContainers = append(p.Spec.InitContainers, corev1.Container{Name: n, Image: "img"})
	}
	for _, n := range strings.Fields(containers) {
		p.Spec.Containers = append(p.Spec.Containers, corev1.Container{Name: n, Image: "img"})
	}
	return p
}

// parse reads "a:run", "a.1:exit3", "i:exit0", with "@old" for another boot and "~" for a cut-off
// or long-ago end. Names beginning with i are init containers.
func parse(spec string) []Container {
	var out []Container
	for i, f := range strings.Fields(spec) {
		name, state, _ := strings.Cut(f, ":")
		state, at, _ := strings.Cut(state, "@")
		c := Container{Boot: boot, Created: t0.Add(-time.Hour + time.Duration(i)*time.Second)}
		if at != "" {
			c.Boot = at
		}
		name, attempt, ok := strings.Cut(name, ".")
		if ok {
			if _, err := fmt.Sscan(attempt, &c.Attempt); err != nil {
				panic(err)
			}
		}
		c.Name, c.ID = name, fmt.Sprintf("%s.%d", name, c.Attempt)
		c.Init = strings.HasPrefix(name, "i")
		c.Hash = podspec.Hash(&corev1.Container{Name: name, Image: "img"})
		c.Started = c.Created
		switch state {
		case "run":
			c.State = Running
		case "created":
			c.State = Created
		case "unknown":
			c.State = Unknown
		default:
			c.State = Exited
			if _, err := fmt.Sscanf(state, "exit%d", &c.ExitCode); err != nil {
				panic(err)
			}
			c.Finished = t0.Add(-time.Second)
			c.Reason = ReasonError
			if c.ExitCode == 0 {
				c.Reason = ReasonCompleted
			}
		}
		out = append(out, c)
	}
	return out
}

func show(p Plan) string {
	var out []string
	for _, k := range p.Kill {
		out = append(out, "kill "+k.Container.ID)
	}
	for _, r := range p.Remove {
		out = append(out, "remove "+r)
	}
	for _, s := range p.Start {
		out = append(out, fmt.Sprintf("start %s.%d", s.Spec.Name, s.Attempt))
	}
	for n, w := range p.Waiting {
		out = append(out, n+" waits: "+w.Reason)
	}
	if p.Done {
		out = append(out, "done")
	}
	return strings.Join(out, ", ")
}

func TestCompute(t *testing.T) {
	always, onFailure, never := corev1.RestartPolicyAlways, corev1.RestartPolicyOnFailure, corev1.RestartPolicyNever
	for _, tc := range []struct {
		name         string
		policy       corev1.RestartPolicy
		inits, conts string
		have         string
		change       func(*Input)
		want         string
		wake         time.Duration
	}{
		{name: "new pod", policy: always, conts: "a b", want: "start a.0, start b.0"},
		{name: "running", policy: always, conts: "a b", have: "a:run b:run"},
		{name: "first init", policy: always, inits: "i j", conts: "a", want: "start i.0"},
		{name: "init runs", policy: always, inits: "i j", conts: "a", have: "i:run"},
		{name: "second init", policy: always, inits: "i j", conts: "a", have: "i:exit0", want: "start j.0"},
		{name: "inits done", policy: always, inits: "i j", conts: "a", have: "i:exit0 j:exit0", want: "start a.0"},
		{name: "first init is gone, second done", policy: always, inits: "i j", conts: "a", have: "j:exit0", want: "start a.0"},
		{name: "init failed", policy: always, inits: "i", conts: "a", have: "i:exit1", want: "start i.1"},
		{name: "init failed for good", policy: never, inits: "i", conts: "a", have: "i:exit1", want: "done"},
		{name: "init never started", policy: always, inits: "i", conts: "a", have: "i:created", want: "start i.0"},
		{name: "initialised once is enough", policy: always, inits: "i", conts: "a", have: "a:run"},
		{name: "restart at once the first time", policy: always, conts: "a", have: "a:exit0", want: "start a.1"},
		{
			name: "crash loop", policy: always, conts: "a", have: "a:exit1",
			change: func(in *Input) {
				in.Backoffs = map[string]Backoff{"a": {Delay: 20 * time.Second, Last: t0.Add(-time.Minute)}}
			},
			want: "a waits: CrashLoopBackOff", wake: 19 * time.Second,
		},
		{
			name: "back-off over", policy: always, conts: "a", have: "a:exit1",
			change: func(in *Input) {
				in.Backoffs = map[string]Backoff{"a": {Delay: time.Second, Last: t0.Add(-time.Minute)}}
			},
			want: "start a.1",
		},
		{
			name: "long run forgives", policy: always, conts: "a", have: "a:exit1",
			change: func(in *Input) {
				in.Backoffs = map[string]Backoff{"a": {Delay: 5 * time.Minute, Last: t0.Add(-11 * time.Minute)}}
			},
			want: "start a.1",
		},
		{name: "success is not restarted", policy: onFailure, conts: "a", have: "a:exit0", want: "done"},
		{name: "failure is", policy: onFailure, conts: "a", have: "a:exit1", want: "start a.1"},
		{name: "never", policy: never, conts: "a b", have: "a:exit1 b:run"},
		{name: "never, all ended", policy: never, conts: "a b", have: "a:exit1 b:exit0", want: "done"},
		{
			name: "killed to be restarted", policy: onFailure, conts: "a", have: "a:exit0",
			change: func(in *Input) { in.Containers[0].Restart = true }, want: "start a.1",
		},
		{
			name: "liveness", policy: always, conts: "a b", have: "a:run b:run",
			change: func(in *Input) { in.Health = map[string]Health{"a.0": {Failed: LivenessFailed}} }, want: "kill a.0",
		},
		{
			name: "new image", policy: always, conts: "a", have: "a:run",
			change: func(in *Input) { in.Pod.Spec.Containers[0].Image = "img2" }, want: "kill a.0",
		},
		{name: "unknown is killed first", policy: always, conts: "a", have: "a:unknown", want: "kill a.0"},
		{
			name: "held", policy: always, conts: "a b",
			change: func(in *Input) { in.Hold = map[string]time.Time{"a": t0.Add(3 * time.Second)} }, want: "start b.0", wake: 3 * time.Second,
		},
		{name: "old attempts go", policy: always, conts: "a", have: "a.0:exit1 a.1:exit1 a.2:run", want: "remove a.0"},
		{name: "lost with its storage", policy: always, conts: "a", change: func(in *Input) {
			in.Pod.Status.ContainerStatuses = []corev1.ContainerStatus{{Name: "a", RestartCount: 4, ContainerID: "podman://x"}}
		}, want: "start a.5"},
		// After a power failure.
		{name: "reboot", policy: always, conts: "a", have: "a:exit255@old", want: "start a.1"},
		{
			name: "reboot has no back-off", policy: always, conts: "a", have: "a.3:exit255@old",
			change: func(in *Input) { in.Backoffs = map[string]Backoff{"a": {Delay: time.Minute, Last: t0}} }, want: "start a.4",
		},
		{name: "reboot, never", policy: never, conts: "a", have: "a:exit255@old", want: "done"},
		{name: "reboot, job was done", policy: onFailure, conts: "a", have: "a:exit0@old", want: "done"},
		{name: "reboot begins with init", policy: always, inits: "i", conts: "a", have: "i:exit0@old a:exit255@old", want: "start i.1"},
		{name: "reboot, job was done, with init", policy: onFailure, inits: "i", conts: "a", have: "i:exit0@old a:exit0@old", want: "done"},
		{name: "reboot between init and main, never", policy: never, inits: "i", conts: "a", have: "i:exit0@old", want: "start a.0"},
		{name: "reboot in init, never", policy: never, inits: "i", conts: "a", have: "i:exit255@old", want: "done"},
		{name: "second init after reboot", policy: always, inits: "i j", conts: "a", have: "i:exit0@old j:exit0@old a:exit255@old i.1:exit0", want: "start j.1"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			in := Input{Pod: makePod(tc.policy, tc.inits, tc.conts), Containers: parse(tc.have), Boot: boot, Now: t0}
			if tc.change != nil {
				tc.change(&in)
			}
			p := Compute(in)
			if got := show(p); got != tc.want {
				t.Errorf("got  %s\nwant %s", got, tc.want)
			}
			wake := time.Duration(0)
			if !p.Wake.IsZero() {
				wake = p.Wake.Sub(t0)
			}
			if wake != tc.wake {
				t.Errorf("wakes after %v, want %v", wake, tc.wake)
			}
		})
	}
}

func TestBackoff(t *testing.T) {
	var b Backoff
	now := t0
	var got []time.Duration
	for range 8 {
		until := b.Until(now)
		wait := max(until.Sub(now), 0)
		got = append(got, wait)
		failed := now
		now = now.Add(wait)
		b = b.Next(failed, now)
		now = now.Add(time.Second) // it runs a second, then fails
	}
	want := []int{0, 10, 20, 40, 80, 160, 300, 300}
	for i := range want {
		if got[i] != time.Duration(want[i])*time.Second {
			t.Fatalf("waits %v", got)
		}
	}
	if r := Resumed(&Container{Attempt: 3, Created: t0}); r.Delay != 40*time.Second {
		t.Errorf("resumed with %v", r.Delay)
	}
	if r := Resumed(&Container{Attempt: 90, Created: t0}); r.Delay != BackoffMax {
		t.Errorf("resumed with %v", r.Delay)
	}
}

func TestUnsupported(t *testing.T) {
	p := makePod(corev1.RestartPolicyAlways, "i", "a")
	if why := Unsupported(p); why != "" {
		t.Error(why)
	}
	always := corev1.ContainerRestartPolicyAlways
	p.Spec.InitContainers[0].RestartPolicy = &always
	if Unsupported(p) == "" {
		t.Error("a sidecar passes")
	}
}
