package objects

import (
	"context"
	"errors"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/client-go/kubernetes/fake"
	clienttesting "k8s.io/client-go/testing"
)

func TestReads(t *testing.T) {
	yes := true
	client := fake.NewClientset(
		&corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Namespace: "ns", Name: "a"}},
		&corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Namespace: "ns", Name: "fixed"}, Immutable: &yes},
	)
	now := time.Unix(1000, 0)
	o := New(client, nil, func() time.Time { return now })
	reads := func(name string, wait time.Duration) int {
		t.Helper()
		now = now.Add(wait)
		before := len(client.Actions())
		for range 30 {
			if _, err := o.ConfigMap(t.Context(), "ns", name); err != nil {
				t.Fatal(err)
			}
		}
		return len(client.Actions()) - before
	}
	for _, step := range []struct {
		name string
		wait time.Duration
		want int
	}{
		{"a", 0, 1}, {"a", reread / 2, 0}, {"a", reread, 1}, {"fixed", 0, 1}, {"fixed", time.Hour, 0},
	} {
		if got := reads(step.name, step.wait); got != step.want {
			t.Errorf("%s after %v: 30 pods cause %d reads, want %d", step.name, step.wait, got, step.want)
		}
	}
	now = now.Add(2 * forget)
	o.Expire()
	if len(o.cached) != 0 {
		t.Errorf("%d objects are remembered for nobody", len(o.cached))
	}
}

// Who waits for another's read of the same object gives up when he must, not when that ends.
func TestGivesUpWaiting(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		client := fake.NewClientset(&corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Namespace: "ns", Name: "a"}})
		answer := make(chan struct{}) // there is no leader
		client.PrependReactor("get", "configmaps", func(clienttesting.Action) (bool, runtime.Object, error) {
			<-answer
			return false, nil, nil
		})
		o := New(client, nil, time.Now)
		var g sync.WaitGroup
		g.Go(func() {
			if _, err := o.ConfigMap(t.Context(), "ns", "a"); err != nil {
				t.Error(err)
			}
		})
		synctest.Wait()
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		begun := time.Now()
		if _, err := o.ConfigMap(ctx, "ns", "a"); !errors.Is(err, context.DeadlineExceeded) {
			t.Error(err)
		}
		if took := time.Since(begun); took != time.Second {
			t.Errorf("it gave up after %v", took)
		}
		o.Expire()
		close(answer)
		g.Wait()
	})
}

// An absent object is told in a kubelet's words, and looked for again at once when it appears.
func TestAbsent(t *testing.T) {
	client := fake.NewClientset()
	o := New(client, nil, time.Now)
	_, err := o.Secret(t.Context(), "ns", "s")
	if !apierrors.IsNotFound(err) || err.Error() != `secret "s" not found` {
		t.Error(err)
	}
	s := &corev1.Secret{ObjectMeta: metav1.ObjectMeta{Namespace: "ns", Name: "s"}}
	if _, err := client.CoreV1().Secrets("ns").Create(t.Context(), s, metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	if _, err := o.Secret(t.Context(), "ns", "s"); err != nil {
		t.Error(err)
	}
}
