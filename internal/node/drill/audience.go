package drill

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/informers"
	"k8s.io/client-go/kubernetes"
	appslisters "k8s.io/client-go/listers/apps/v1"
	corelisters "k8s.io/client-go/listers/core/v1"
	"k8s.io/client-go/tools/cache"
)

// audience watches a drill: the pods, their ReplicaSets and the nodes, as they change.
type audience struct {
	pods  corelisters.PodLister
	sets  appslisters.ReplicaSetLister
	nodes corelisters.NodeLister
	leave func()

	mu   sync.Mutex
	next chan struct{} // closed at the next change
}

// watchPods opens the curtain; the caller closes it by leave.
func watchPods(ctx context.Context, client kubernetes.Interface) (*audience, error) {
	ctx, cancel := context.WithCancel(ctx)
	factory := informers.NewSharedInformerFactory(client, 0)
	core, apps := factory.Core().V1(), factory.Apps().V1()
	a := &audience{
		pods: core.Pods().Lister(), sets: apps.ReplicaSets().Lister(), nodes: core.Nodes().Lister(), next: make(chan struct{}),
		leave: func() { cancel(); factory.Shutdown() },
	}
	bell := cache.ResourceEventHandlerFuncs{
		AddFunc: func(any) { a.ring() }, UpdateFunc: func(any, any) { a.ring() }, DeleteFunc: func(any) { a.ring() },
	}
	for _, i := range []cache.SharedIndexInformer{core.Pods().Informer(), apps.ReplicaSets().Informer(), core.Nodes().Informer()} {
		if _, err := i.AddEventHandler(bell); err != nil {
			a.leave()
			return nil, err
		}
	}
	factory.Start(ctx.Done())
	for kind, synced := range factory.WaitForCacheSync(ctx.Done()) {
		if !synced {
			a.leave()
			return nil, fmt.Errorf("list %v: %w", kind, context.Cause(ctx))
		}
	}
	return a, nil
}

func (a *audience) ring() {
	a.mu.Lock()
	defer a.mu.Unlock()
	close(a.next)
	a.next = make(chan struct{})
}

// changed is closed at the next change. Take it before looking.
func (a *audience) changed() <-chan struct{} {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.next
}

// complete are the ReplicaSets that have all their pods ready.
func (a *audience) complete() (map[types.UID]int32, error) {
	all, err := a.sets.List(labels.Everything())
	if err != nil {
		return nil, err
	}
	out := map[types.UID]int32{}
	for _, s := range all {
		if n := replicas(s); n > 0 && s.Status.ReadyReplicas >= n {
			out[s.UID] = n
		}
	}
	return out, nil
}

func replicas(s *appsv1.ReplicaSet) int32 {
	if s.Spec.Replicas == nil {
		return 1
	}
	return *s.Spec.Replicas
}

// missing names the ReplicaSets that do not have all their pods ready on other nodes than one. What was
// scaled down or deleted meanwhile misses nothing.
func (a *audience) missing(sets map[types.UID]string, node string) ([]string, error) {
	all, err := a.sets.List(labels.Everything())
	if err != nil {
		return nil, err
	}
	pods, err := a.pods.List(labels.Everything())
	if err != nil {
		return nil, err
	}
	ready := map[types.UID]int32{}
	for _, p := range pods {
		if owner := metav1.GetControllerOf(p); owner != nil && p.Spec.NodeName != node && p.DeletionTimestamp == nil && podReady(p) {
			ready[owner.UID]++
		}
	}
	var out []string
	for _, s := range all {
		if name, ours := sets[s.UID]; ours && ready[s.UID] < replicas(s) {
			out = append(out, fmt.Sprintf("%s (%d of %d)", name, ready[s.UID], replicas(s)))
		}
	}
	slices.Sort(out)
	return out, nil
}

func podReady(p *corev1.Pod) bool {
	for _, c := range p.Status.Conditions {
		if c.Type == corev1.PodReady {
			return c.Status == corev1.ConditionTrue
		}
	}
	return false
}

// replacedAt waits until nothing of the sets is missing any more.
func (a *audience) replacedAt(ctx context.Context, sets map[types.UID]string, node string) (time.Time, error) {
	for {
		changed := a.changed()
		missing, err := a.missing(sets, node)
		if err != nil {
			return time.Time{}, err
		}
		if len(missing) == 0 {
			return time.Now(), nil
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return time.Time{}, fmt.Errorf("not ready on other nodes: %s", strings.Join(missing, ", "))
		}
	}
}

// settlePatience bounds the wait for a node that is back.
const settlePatience = 30 * time.Second

// settled waits until a node that is back has done away with the pods that are no longer its own.
func (a *audience) settled(ctx context.Context, node string) {
	ctx, cancel := context.WithTimeout(ctx, settlePatience)
	defer cancel()
	for {
		changed := a.changed()
		pods, err := a.pods.List(labels.Everything())
		if err != nil || !slices.ContainsFunc(pods, func(p *corev1.Pod) bool { return p.Spec.NodeName == node && p.DeletionTimestamp != nil }) {
			return
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return
		}
	}
}
