package plan

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

func brief(s corev1.PodStatus) string {
	var out []string
	for _, group := range [][]corev1.ContainerStatus{s.InitContainerStatuses, s.ContainerStatuses} {
		for _, c := range group {
			state := ""
			switch {
			case c.State.Running != nil:
				state = "running"
			case c.State.Waiting != nil:
				state = c.State.Waiting.Reason
			case c.State.Terminated != nil:
				state = fmt.Sprintf("%s(%d)", c.State.Terminated.Reason, c.State.Terminated.ExitCode)
			}
			text := c.Name + "=" + state
			if l := c.LastTerminationState.Terminated; l != nil {
				text += fmt.Sprintf("<%s(%d)", l.Reason, l.ExitCode)
			}
			if c.RestartCount > 0 {
				text += fmt.Sprintf("x%d", c.RestartCount)
			}
			if c.Ready {
				text += "+"
			}
			out = append(out, text)
		}
	}
	return string(s.Phase) + ": " + strings.Join(out, " ")
}

func TestStatus(t *testing.T) {
	always, onFailure, never := corev1.RestartPolicyAlways, corev1.RestartPolicyOnFailure, corev1.RestartPolicyNever
	well := map[string]Health{}
	for _, id := range []string{"a.0", "a.1", "a.2", "b.0"} {
		well[id] = Health{Started: true, Ready: true}
	}
	for _, tc := range []struct {
		name         string
		policy       corev1.RestartPolicy
		inits, conts string
		have         string
		change       func(*StatusInput)
		want         string
	}{
		{name: "new", policy: always, conts: "a", want: "Pending: a=ContainerCreating"},
		{name: "new with init", policy: always, inits: "i", conts: "a", want: "Pending: i=PodInitializing a=PodInitializing"},
		{name: "init runs", policy: always, inits: "i", conts: "a", have: "i:run", want: "Pending: i=running a=PodInitializing"},
		{name: "init done", policy: always, inits: "i", conts: "a", have: "i:exit0 a:run", want: "Running: i=Completed(0)+ a=running+"},
		{name: "init is gone", policy: always, inits: "i", conts: "a", have: "a:run", want: "Running: i=Completed(0)+ a=running+"},
		{name: "init failed", policy: never, inits: "i", conts: "a", have: "i:exit3", want: "Failed: i=Error(3) a=PodInitializing"},
		{name: "init fails and is tried again", policy: always, inits: "i", conts: "a", have: "i:exit3", want: "Pending: i=Error(3) a=PodInitializing"},
		{name: "one runs", policy: always, conts: "a b", have: "a:run", want: "Pending: a=running+ b=ContainerCreating"},
		{name: "both run", policy: always, conts: "a b", have: "a:run b:run", want: "Running: a=running+ b=running+"},
		{name: "restarted", policy: always, conts: "a", have: "a:exit1 a.1:run", want: "Running: a=running<Error(1)x1+"},
		{name: "twice restarted", policy: always, conts: "a", have: "a:exit1 a.1:exit2 a.2:run", want: "Running: a=running<Error(2)x2+"},
		{
			name: "crash loop", policy: always, conts: "a", have: "a.1:exit1",
			change: func(in *StatusInput) { in.Waiting = map[string]Waiting{"a": {Reason: "CrashLoopBackOff"}} },
			want:   "Running: a=CrashLoopBackOff<Error(1)x1",
		},
		{
			name: "waiting reason of one that needs no restart", policy: never, conts: "a", have: "a:exit1",
			change: func(in *StatusInput) { in.Waiting = map[string]Waiting{"a": {Reason: "CrashLoopBackOff"}} },
			want:   "Failed: a=Error(1)",
		},
		{
			name: "image", policy: always, conts: "a",
			change: func(in *StatusInput) { in.Waiting = map[string]Waiting{"a": {Reason: "ErrImagePull"}} },
			want:   "Pending: a=ErrImagePull",
		},
		{name: "succeeded", policy: never, conts: "a b", have: "a:exit0 b:exit0", want: "Succeeded: a=Completed(0) b=Completed(0)"},
		{name: "failed", policy: never, conts: "a b", have: "a:exit0 b:exit2", want: "Failed: a=Completed(0) b=Error(2)"},
		{name: "on failure, one to be restarted", policy: onFailure, conts: "a b", have: "a:exit0 b:exit2", want: "Running: a=Completed(0) b=Error(2)"},
		{name: "always, about to be restarted", policy: always, conts: "a", have: "a:exit0", want: "Running: a=Completed(0)"},
		{
			name: "killed to be restarted", policy: onFailure, conts: "a", have: "a:exit0",
			change: func(in *StatusInput) { in.Containers[0].Restart = true }, want: "Running: a=Completed(0)",
		},
		{
			name: "deleted while running", policy: always, conts: "a", have: "a:exit0",
			change: func(in *StatusInput) { in.Ended = true }, want: "Succeeded: a=Completed(0)",
		},
		{
			name: "deleted and killed", policy: always, conts: "a", have: "a:exit137",
			change: func(in *StatusInput) { in.Ended = true }, want: "Failed: a=Error(137)",
		},
		{
			name: "deleted before it started", policy: always, conts: "a",
			change: func(in *StatusInput) { in.Ended = true }, want: "Failed: a=ContainerStatusUnknown(137)",
		},
		{name: "deadline", policy: always, conts: "a", have: "a:exit0", change: func(in *StatusInput) {
			in.Ended, in.Failed = true, &Failure{Reason: "DeadlineExceeded"}
		}, want: "Failed: a=Completed(0)"},
		{
			name: "terminal stays terminal", policy: always, conts: "a", have: "a:run",
			change: func(in *StatusInput) { in.Pod.Status.Phase = corev1.PodFailed }, want: "Failed: a=running+",
		},
		{name: "container vanished", policy: always, conts: "a", change: func(in *StatusInput) {
			in.Old.ContainerStatuses = []corev1.ContainerStatus{{
				Name: "a", RestartCount: 2, ContainerID: "podman://a.2",
				State: corev1.ContainerState{Running: &corev1.ContainerStateRunning{}},
			}}
		}, want: "Running: a=ContainerCreating<ContainerStatusUnknown(137)x3"},
		{
			name: "cut off, never", policy: never, conts: "a", have: "a:exit255@old",
			change: func(in *StatusInput) { in.Containers[0].Reason = ReasonNodeReboot }, want: "Failed: a=NodeReboot(255)",
		},
		{name: "cut off, restarted", policy: always, conts: "a", have: "a:exit255@old a.1:run", change: func(in *StatusInput) {
			in.Containers[0].Reason = ReasonNodeReboot
		}, want: "Running: a=running<NodeReboot(255)x1+"},
		{
			name: "not started yet", policy: always, conts: "a", have: "a:run",
			change: func(in *StatusInput) { in.Health = map[string]Health{"a.0": {Ready: true}} }, want: "Running: a=running",
		},
	} {
		t.Run(tc.name, func(t *testing.T) {
			in := StatusInput{
				Pod: makePod(tc.policy, tc.inits, tc.conts), Containers: parse(tc.have), Health: well, Boot: boot, Now: t0,
				Sandbox: true,
			}
			if tc.change != nil {
				tc.change(&in)
			}
			got := Status(in)
			if d := cmp.Diff(tc.want, brief(got)); d != "" {
				t.Error(d)
			}
			// Told once, it is not told again.
			in.Old, in.Now = got, t0.Add(time.Hour)
			if again := Status(in); !cmp.Equal(got, again) {
				t.Error("not stable:", cmp.Diff(got, again))
			}
		})
	}
}

func conditionsOf(s corev1.PodStatus) map[corev1.PodConditionType]string {
	out := map[corev1.PodConditionType]string{}
	for _, c := range s.Conditions {
		out[c.Type] = string(c.Status)
		if c.Reason != "" {
			out[c.Type] += " " + c.Reason
		}
	}
	return out
}

func TestConditions(t *testing.T) {
	in := StatusInput{Pod: makePod(corev1.RestartPolicyNever, "i", "a"), Boot: boot, Now: t0}
	in.Pod.Generation = 7
	in.Pod.Spec.ReadinessGates = []corev1.PodReadinessGate{{ConditionType: "example.com/gate"}}
	step := func(change func(), want map[corev1.PodConditionType]string) corev1.PodStatus {
		t.Helper()
		change()
		s := Status(in)
		if d := cmp.Diff(want, conditionsOf(s)); d != "" {
			t.Error(d)
		}
		for _, c := range s.Conditions {
			if owned(c.Type) && c.ObservedGeneration != 7 {
				t.Errorf("%s observed %d", c.Type, c.ObservedGeneration)
			}
		}
		in.Old = s
		in.Now = in.Now.Add(time.Minute)
		return s
	}
	first := step(func() {}, map[corev1.PodConditionType]string{
		"PodReadyToStartContainers": "False PodSandboxNotReady", "Initialized": "False ContainersNotInitialized",
		"Ready": "False ContainersNotReady", "ContainersReady": "False ContainersNotReady", "PodScheduled": "True",
	})
	if !first.StartTime.Time.Equal(t0) {
		t.Error("start time", first.StartTime)
	}
	second := step(func() {
		in.Sandbox, in.Containers = true, parse("i:exit0 a:run")
		in.Health = map[string]Health{"a.0": {Started: true, Ready: true}}
	}, map[corev1.PodConditionType]string{
		"PodReadyToStartContainers": "True", "Initialized": "True", "Ready": "False ReadinessGatesNotReady",
		"ContainersReady": "True", "PodScheduled": "True",
	})
	if !second.StartTime.Time.Equal(t0) {
		t.Error("the start time moved")
	}
	for _, c := range second.Conditions {
		moved := c.LastTransitionTime.After(t0)
		if same := c.Type == corev1.PodScheduled || c.Type == corev1.PodReady; moved == same {
			t.Errorf("%s: transition at %v", c.Type, c.LastTransitionTime)
		}
	}
	step(func() {
		in.Pod.Status.Conditions = []corev1.PodCondition{{Type: "example.com/gate", Status: corev1.ConditionTrue}}
	}, map[corev1.PodConditionType]string{
		"example.com/gate": "True", "PodReadyToStartContainers": "True", "Initialized": "True", "Ready": "True",
		"ContainersReady": "True", "PodScheduled": "True",
	})
	step(func() { in.Containers = parse("i:exit0 a:exit0") }, map[corev1.PodConditionType]string{
		"example.com/gate": "True", "PodReadyToStartContainers": "True", "Initialized": "True PodCompleted",
		"Ready": "False PodCompleted", "ContainersReady": "False PodCompleted", "PodScheduled": "True",
	})
}

func TestHold(t *testing.T) {
	old := corev1.PodStatus{Phase: corev1.PodRunning}
	if s := Hold(corev1.PodStatus{Phase: corev1.PodFailed, Reason: "x"}, old); s.Phase != corev1.PodRunning || s.Reason != "" {
		t.Error(s)
	}
	if s := Hold(corev1.PodStatus{Phase: corev1.PodFailed}, corev1.PodStatus{Phase: corev1.PodFailed}); s.Phase != corev1.PodFailed {
		t.Error(s)
	}
}

func TestAddresses(t *testing.T) {
	in := StatusInput{
		Pod: makePod(corev1.RestartPolicyAlways, "", "a"), Now: t0, HostIPs: []string{"192.0.2.1"}, PodIPs: []string{"10.244.0.2"},
	}
	s := Status(in)
	if s.PodIP != "10.244.0.2" || s.HostIP != "192.0.2.1" || len(s.PodIPs) != 1 {
		t.Error(s)
	}
	in.Old, in.PodIPs, in.Ended = s, nil, true
	if s = Status(in); s.PodIP != "10.244.0.2" {
		t.Error("an ended pod loses its address")
	}
	in.Ended, in.Pod.Spec.HostNetwork = false, true
	if s = Status(in); s.PodIP != "192.0.2.1" {
		t.Error(s.PodIP)
	}
	in.Old.StartTime = &metav1.Time{Time: t0.Add(-time.Hour)}
	if s = Status(in); !s.StartTime.Time.Equal(t0.Add(-time.Hour)) {
		t.Error(s.StartTime)
	}
}
