package liveness

import (
	"context"
	"log/slog"
	"slices"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/informers"
	"k8s.io/client-go/kubernetes/fake"

	"github.com/podman-swarm/podman-swarm/internal/tap"
)

func node(conditions map[corev1.NodeConditionType]corev1.ConditionStatus, taints ...corev1.Taint) *corev1.Node {
	n := &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: "n"}, Spec: corev1.NodeSpec{Taints: taints}}
	for t, s := range conditions {
		n.Status.Conditions = append(n.Status.Conditions, corev1.NodeCondition{Type: t, Status: s})
	}
	return n
}

type conditions = map[corev1.NodeConditionType]corev1.ConditionStatus

func TestCompile(t *testing.T) {
	foreign := corev1.Taint{Key: "dedicated", Value: "gpu", Effect: corev1.TaintEffectNoSchedule}
	notReady := corev1.Taint{Key: corev1.TaintNodeNotReady, Effect: corev1.TaintEffectNoSchedule}
	for _, tc := range []struct {
		name    string
		node    *corev1.Node
		want    []string
		changed bool
	}{
		{"a new node keeps the taint it was admitted with", node(nil, notReady), []string{"node.kubernetes.io/not-ready:NoSchedule"}, false},
		{"ready", node(conditions{corev1.NodeReady: corev1.ConditionTrue}, notReady), nil, true},
		{"others' taints stay", node(conditions{corev1.NodeReady: corev1.ConditionTrue}, foreign, notReady), []string{"dedicated=gpu:NoSchedule"}, true},
		{"nothing to do", node(conditions{corev1.NodeReady: corev1.ConditionTrue}, foreign), []string{"dedicated=gpu:NoSchedule"}, false},
		{
			"not ready", node(conditions{corev1.NodeReady: corev1.ConditionFalse}),
			[]string{"node.kubernetes.io/not-ready:NoSchedule", "node.kubernetes.io/not-ready:NoExecute"}, true,
		},
		{
			"unknown replaces not ready", node(conditions{corev1.NodeReady: corev1.ConditionUnknown}, notReady),
			[]string{"node.kubernetes.io/unreachable:NoSchedule", "node.kubernetes.io/unreachable:NoExecute"}, true,
		},
		{
			"pressure", node(conditions{corev1.NodeReady: corev1.ConditionTrue, corev1.NodeDiskPressure: corev1.ConditionTrue}),
			[]string{"node.kubernetes.io/disk-pressure:NoSchedule"}, true,
		},
	} {
		t.Run(tc.name, func(t *testing.T) {
			taints, changed := compile(tc.node, metav1.Now())
			got, want := describe(taints), slices.Clone(tc.want)
			if changed != tc.changed || !slices.Equal(got, want) && len(got)+len(want) > 0 {
				t.Errorf("compile = %v, %v; want %v, %v", got, changed, want, tc.changed)
			}
			tc.node.Spec.Taints = taints
			if _, again := compile(tc.node, metav1.Now()); again {
				t.Error("compiling the result again changes it")
			}
		})
	}
}

// TestEvictionTimeStays: taint-based eviction counts from the time a taint was added.
func TestEvictionTimeStays(t *testing.T) {
	n := node(conditions{corev1.NodeReady: corev1.ConditionFalse})
	first := metav1.NewTime(time.Unix(1000, 0))
	n.Spec.Taints, _ = compile(n, first)
	n.Status.Conditions = append(n.Status.Conditions, corev1.NodeCondition{Type: corev1.NodeDiskPressure, Status: corev1.ConditionTrue})
	taints, changed := compile(n, metav1.NewTime(time.Unix(2000, 0)))
	if !changed {
		t.Fatal("the new condition was not seen")
	}
	for _, taint := range taints {
		if taint.Effect == corev1.TaintEffectNoExecute && !taint.TimeAdded.Equal(&first) {
			t.Errorf("%s: added at %v, was %v", taint.ToString(), taint.TimeAdded, first)
		}
	}
}

func TestRun(t *testing.T) {
	n := node(conditions{corev1.NodeReady: corev1.ConditionTrue}, corev1.Taint{Key: corev1.TaintNodeNotReady, Effect: corev1.TaintEffectNoSchedule})
	client := fake.NewClientset(n)
	ctx, cancel := context.WithCancel(t.Context())
	source := tap.NewSource(informers.NewSharedInformerFactory(client, 0), t.Context().Done())
	done := make(chan error, 1)
	go func() {
		done <- Run(ctx, Config{Client: client, Informers: source, Log: slog.New(slog.DiscardHandler)})
	}()
	w, err := client.CoreV1().Nodes().Watch(ctx, metav1.ListOptions{})
	if err != nil {
		t.Fatal(err)
	}
	for got, _ := client.CoreV1().Nodes().Get(ctx, "n", metav1.GetOptions{}); len(got.Spec.Taints) > 0; {
		e := <-w.ResultChan()
		got = e.Object.(*corev1.Node)
	}
	cancel()
	if err := <-done; err != nil {
		t.Error(err)
	}
}
