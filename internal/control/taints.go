package control

import (
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"slices"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/kubernetes"
	listers "k8s.io/client-go/listers/core/v1"
	"k8s.io/client-go/tools/cache"
	"k8s.io/kubernetes/cmd/kube-controller-manager/app"

	"github.com/podman-swarm/podman-swarm/internal/control/liveness"
	"github.com/podman-swarm/podman-swarm/internal/loop"
)

// taintController turns what a node says of itself into taints: NoSchedule for every condition
// under which it must get no new pods, NoExecute when it is not ready. A new node is born tainted
// not-ready by admission, and gets its first pods when this controller has taken that away.
//
// Upstream's node-lifecycle controller does this together with judging liveness by heartbeats,
// which there are none of here.
type taintController struct {
	client kubernetes.Interface
	nodes  listers.NodeLister
	bench  *liveness.Bench // nil: there is only one node
	synced cache.DoneChecker
	loop   *loop.Loop
}

func newTaintController(shared app.ControllerContext, bench *liveness.Bench, log *slog.Logger) (*taintController, error) {
	// Upstream's service account for everything about nodes.
	client, err := shared.NewClient("node-controller")
	if err != nil {
		return nil, fmt.Errorf("make client: %w", err)
	}
	informer := shared.InformerFactory.Core().V1().Nodes()
	t := &taintController{client: client, nodes: informer.Lister(), bench: bench}
	return t, t.listen(informer.Informer(), log)
}

// listen makes the loop and has the informer feed it.
func (t *taintController) listen(informer cache.SharedIndexInformer, log *slog.Logger) error {
	t.loop = loop.New(t.Name(), t.reconcile, loop.Options{Log: log})
	add := func(obj any) { t.loop.Add(obj.(*corev1.Node).Name) }
	registration, err := informer.AddEventHandler(cache.ResourceEventHandlerFuncs{
		AddFunc: add, UpdateFunc: func(_, obj any) { add(obj) },
	})
	if err != nil {
		return fmt.Errorf("watch nodes: %w", err)
	}
	t.synced = registration.HasSyncedChecker()
	return nil
}

// Name names the controller in logs and metrics.
func (*taintController) Name() string { return "node-taint-controller" }

// Run blocks until ctx ends.
func (t *taintController) Run(ctx context.Context) {
	if cache.WaitFor(ctx, t.Name(), t.synced) {
		t.loop.Run(ctx)
	}
}

func (t *taintController) reconcile(ctx context.Context, name string) error {
	node, err := t.nodes.Get(name)
	if apierrors.IsNotFound(err) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("get node %s: %w", name, err)
	}
	unreachable := evict
	if t.bench != nil {
		v, err := t.bench.Verdict(node)
		if err != nil {
			return fmt.Errorf("judge node %s: %w", name, err)
		}
		if unreachable = stance(v); !v.Again.IsZero() {
			t.loop.AddAfter(name, max(time.Until(v.Again), 0))
		}
	}
	taints, changed := compileTaints(node, unreachable, metav1.Now())
	if !changed {
		return nil
	}
	// The resourceVersion makes this a compare-and-swap: a list can only be replaced as a whole.
	patch, err := json.Marshal(map[string]any{
		"metadata": map[string]any{"resourceVersion": node.ResourceVersion},
		"spec":     map[string]any{"taints": taints},
	})
	if err != nil {
		return fmt.Errorf("encode taints of %s: %w", name, err)
	}
	_, err = t.client.CoreV1().Nodes().Patch(ctx, name, types.MergePatchType, patch, metav1.PatchOptions{})
	switch {
	case apierrors.IsConflict(err):
		// The informer is behind. It will tell of the newer node, but maybe has already.
		t.loop.AddAfter(name, 50*time.Millisecond)
		return nil
	case err != nil:
		return fmt.Errorf("patch taints of node %s: %w", name, err)
	}
	return nil
}

// review has every node looked at again: who is alive has changed.
func (t *taintController) review() {
	nodes, err := t.nodes.List(labels.Everything())
	if err != nil {
		return // a lister of a cache has no errors but those of selectors
	}
	for _, n := range nodes {
		t.loop.Add(n.Name)
	}
}

// An eviction says what becomes of the pods of a node whose readiness is unknown.
type eviction int

const (
	evict eviction = iota // they are replaced
	hold                  // not yet; those that are being replaced already go on
	spare                 // the node is there after all, and only has not said so yet
)

func stance(v liveness.Verdict) eviction {
	switch {
	case !v.Dead:
		return spare
	case v.Evict:
		return evict
	default:
		return hold
	}
}

// compileTaints returns the taints a node is to have, and whether those it has differ. Taints that
// nobody but a user sets are kept, as is the time at which a taint was added.
func compileTaints(node *corev1.Node, unreachable eviction, now metav1.Time) (taints []corev1.Taint, changed bool) {
	want := wantedTaints(node)
	gone := taint{corev1.TaintNodeUnreachable, corev1.TaintEffectNoExecute}
	want[gone] = want[gone] && (unreachable == evict || unreachable == hold && hasTaint(node, gone))
	have := map[taint]bool{}
	for _, t := range node.Spec.Taints {
		key := taint{t.Key, t.Effect}
		if isOurs(key) && !want[key] {
			changed = true
			continue
		}
		have[key] = true
		taints = append(taints, t)
	}
	// In a fixed order: a set would make a different patch every time.
	for _, key := range ourTaints() {
		if !want[key] || have[key] {
			continue
		}
		added := corev1.Taint{Key: key.key, Effect: key.effect}
		if key.effect == corev1.TaintEffectNoExecute {
			added.TimeAdded = &now
		}
		taints, changed = append(taints, added), true
	}
	return taints, changed
}

// A taint is what makes a taint one and the same: a node has at most one of each.
type taint struct {
	key    string
	effect corev1.TaintEffect
}

func hasTaint(node *corev1.Node, key taint) bool {
	return slices.ContainsFunc(node.Spec.Taints, func(t corev1.Taint) bool { return key == taint{t.Key, t.Effect} })
}

// ourTaints are all that this controller adds and removes, in the order in which it adds them.
func ourTaints() []taint {
	return []taint{
		{corev1.TaintNodeNotReady, corev1.TaintEffectNoSchedule},
		{corev1.TaintNodeUnreachable, corev1.TaintEffectNoSchedule},
		{corev1.TaintNodeUnschedulable, corev1.TaintEffectNoSchedule},
		{corev1.TaintNodeMemoryPressure, corev1.TaintEffectNoSchedule},
		{corev1.TaintNodeDiskPressure, corev1.TaintEffectNoSchedule},
		{corev1.TaintNodePIDPressure, corev1.TaintEffectNoSchedule},
		{corev1.TaintNodeNetworkUnavailable, corev1.TaintEffectNoSchedule},
		{corev1.TaintNodeNotReady, corev1.TaintEffectNoExecute},
		{corev1.TaintNodeUnreachable, corev1.TaintEffectNoExecute},
	}
}

func isOurs(key taint) bool {
	return slices.Contains(ourTaints(), key)
}

// wantedTaints follows upstream's table of conditions and taints.
func wantedTaints(node *corev1.Node) map[taint]bool {
	want := map[taint]bool{{corev1.TaintNodeUnschedulable, corev1.TaintEffectNoSchedule}: node.Spec.Unschedulable}
	// A node that has not said anything yet gets no pods, but keeps those it has.
	want[taint{corev1.TaintNodeNotReady, corev1.TaintEffectNoSchedule}] = true
	for _, c := range node.Status.Conditions {
		isTrue := c.Status == corev1.ConditionTrue
		switch c.Type {
		case corev1.NodeReady:
			for _, effect := range []corev1.TaintEffect{corev1.TaintEffectNoSchedule, corev1.TaintEffectNoExecute} {
				want[taint{corev1.TaintNodeNotReady, effect}] = c.Status == corev1.ConditionFalse
				want[taint{corev1.TaintNodeUnreachable, effect}] = c.Status == corev1.ConditionUnknown
			}
		case corev1.NodeMemoryPressure:
			want[taint{corev1.TaintNodeMemoryPressure, corev1.TaintEffectNoSchedule}] = isTrue
		case corev1.NodeDiskPressure:
			want[taint{corev1.TaintNodeDiskPressure, corev1.TaintEffectNoSchedule}] = isTrue
		case corev1.NodePIDPressure:
			want[taint{corev1.TaintNodePIDPressure, corev1.TaintEffectNoSchedule}] = isTrue
		case corev1.NodeNetworkUnavailable:
			want[taint{corev1.TaintNodeNetworkUnavailable, corev1.TaintEffectNoSchedule}] = isTrue
		}
	}
	return want
}
