package control

import (
	"context"
	"log/slog"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/client-go/informers"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/kubernetes/fake"
	"k8s.io/client-go/tools/cache"
	"k8s.io/client-go/tools/record"
	"k8s.io/kubernetes/pkg/controller/tainteviction"

	"github.com/podman-swarm/podman-swarm/internal/control/liveness"
)

// members is gossip that knows n1 to n3, of which some are dead.
type members struct {
	mu   sync.Mutex
	dead map[string]time.Time
	wake chan struct{}
}

func (m *members) Members() []Member {
	m.mu.Lock()
	defer m.mu.Unlock()
	var out []Member
	for _, name := range []string{"n1", "n2", "n3"} {
		since, dead := m.dead[name]
		out = append(out, Member{Name: name, Alive: !dead, Since: since})
	}
	return out
}

func (m *members) Changed() <-chan struct{} {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.wake
}

func (m *members) kill(names ...string) {
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, name := range names {
		m.dead[name] = time.Now()
	}
	close(m.wake)
	m.wake = make(chan struct{})
}

// TestEviction measures, in virtual time, how long the chain from gossip's word to the deletion of a pod
// takes: liveness, taints, and upstream's eviction, which counts from when it hears of the taint.
func TestEviction(t *testing.T) {
	tests := map[string]struct {
		dead []string
		want time.Duration // from the word of death to the pod's end
	}{
		"two of three are left: the toleration": {[]string{"n3"}, time.Second},
		"one of three is left: a minute more":   {[]string{"n2", "n3"}, 61 * time.Second},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				ctx, cancel := context.WithCancel(t.Context())
				gossip := &members{dead: map[string]time.Time{}, wake: make(chan struct{})}
				client := fake.NewClientset(objects()...)
				stop := runEviction(ctx, t, client, gossip)
				<-time.After(time.Minute)
				mustExist(t, client, "tolerates a second")
				began := time.Now()
				gossip.kill(tt.dead...)
				for exists(t, client, "tolerates a second") {
					if time.Since(began) > time.Hour {
						t.Fatal("never evicted")
					}
					<-time.After(time.Millisecond)
				}
				// Each step of the chain takes no virtual time, and the loop above one millisecond.
				if took := time.Since(began).Round(10 * time.Millisecond); took != tt.want {
					t.Errorf("evicted after %v, want %v", took, tt.want)
				}
				mustExist(t, client, "tolerates everything")
				cancel()
				stop()
			})
		})
	}
}

// objects are three ready nodes and two pods on n3.
func objects() []runtime.Object {
	second := int64(1)
	var out []runtime.Object
	for _, name := range []string{"n1", "n2", "n3"} {
		out = append(out, &corev1.Node{
			ObjectMeta: metav1.ObjectMeta{Name: name},
			Status:     corev1.NodeStatus{Conditions: []corev1.NodeCondition{{Type: corev1.NodeReady, Status: corev1.ConditionTrue}}},
		})
	}
	for name, seconds := range map[string]*int64{"tolerates a second": &second, "tolerates everything": nil} {
		out = append(out, &corev1.Pod{
			ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: name},
			Spec: corev1.PodSpec{NodeName: "n3", Tolerations: []corev1.Toleration{{
				Key: corev1.TaintNodeUnreachable, Operator: corev1.TolerationOpExists, Effect: corev1.TaintEffectNoExecute, TolerationSeconds: seconds,
			}}},
		})
	}
	return out
}

// runEviction starts the three controllers and returns what waits for their end.
func runEviction(ctx context.Context, t *testing.T, client kubernetes.Interface, gossip Liveness) (stop func()) {
	t.Helper()
	factory := informers.NewSharedInformerFactory(client, 0)
	core, log := factory.Core().V1(), slog.New(slog.DiscardHandler)
	bench := liveness.NewBench(liveness.DefaultRules(), gossip, core.Nodes().Lister(), time.Now)
	nodes, err := liveness.New(liveness.Config{
		Client: client, Informers: factory, Bench: bench, Events: record.NewFakeRecorder(1000), Log: log, Now: time.Now,
	})
	if err != nil {
		t.Fatal(err)
	}
	taints := &taintController{client: client, nodes: core.Nodes().Lister(), bench: bench}
	if err := taints.listen(core.Nodes().Informer(), log); err != nil {
		t.Fatal(err)
	}
	if err := core.Pods().Informer().AddIndexers(cache.Indexers{"spec.nodeName": func(obj any) ([]string, error) {
		return []string{obj.(*corev1.Pod).Spec.NodeName}, nil
	}}); err != nil {
		t.Fatal(err)
	}
	evictions, err := tainteviction.New(ctx, client, core.Pods(), core.Nodes(), "taint-eviction")
	if err != nil {
		t.Fatal(err)
	}
	factory.Start(ctx.Done())
	var running sync.WaitGroup
	running.Go(func() { nodes.Run(ctx) })
	running.Go(func() { taints.Run(ctx) })
	running.Go(func() { evictions.Run(ctx) })
	running.Go(func() { bench.Watch(ctx, func() { nodes.Review(); taints.review() }) })
	return func() {
		running.Wait()
		factory.Shutdown()
	}
}

func exists(t *testing.T, client kubernetes.Interface, pod string) bool {
	t.Helper()
	_, err := client.CoreV1().Pods("default").Get(t.Context(), pod, metav1.GetOptions{})
	if err != nil && !apierrors.IsNotFound(err) {
		t.Fatal(err)
	}
	return err == nil
}

func mustExist(t *testing.T, client kubernetes.Interface, pod string) {
	t.Helper()
	if !exists(t, client, pod) {
		t.Fatalf("the pod that %s is gone", pod)
	}
}
