package machine

import (
	"context"
	"strconv"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/client-go/informers"
	"k8s.io/client-go/tools/cache"
)

const (
	// objectFirst and objectMost bound the wait before the node contradicts somebody who wrote its
	// conditions: the first time at once, then ever later. Two who disagree (the leader hears nothing of
	// a node that can still write) must not write all the time.
	objectFirst = time.Second
	objectMost  = 30 * time.Second
)

// watchNode looks at what others make of the Node object until ctx ends. The leader says Unknown of a
// node that it has lost; only the node itself knows what is true once it is back.
func (n *Keeper) watchNode(ctx context.Context) error {
	factory := informers.NewSharedInformerFactoryWithOptions(n.cfg.Client, 0,
		informers.WithTweakListOptions(func(o *metav1.ListOptions) {
			o.FieldSelector = fields.OneTermEqualSelector("metadata.name", n.cfg.Description.Name).String()
		}))
	// The informer is not shared, so adding the handler before its start cannot fail.
	contradicted := make(chan struct{}, 1)
	learn := func(obj any) {
		if node, ok := obj.(*corev1.Node); ok && n.learnNode(node) {
			nudge(contradicted)
		}
	}
	_, _ = factory.Core().V1().Nodes().Informer().AddEventHandler(cache.ResourceEventHandlerFuncs{
		AddFunc: learn, UpdateFunc: func(_, obj any) { learn(obj) },
	})
	factory.Start(ctx.Done())
	defer factory.Shutdown()
	var last time.Time
	delay := time.Duration(0)
	for {
		select {
		case <-contradicted:
		case <-ctx.Done():
			return ctx.Err()
		}
		if n.cfg.Now().Sub(last) > 2*objectMost {
			delay = 0 // that quarrel is over
		}
		timer := time.NewTimer(delay)
		select {
		case <-timer.C:
		case <-ctx.Done():
			timer.Stop()
			return ctx.Err()
		}
		last, delay = n.cfg.Now(), min(max(2*delay, objectFirst), objectMost)
		nudge(n.wake)
	}
}

// learnNode remembers a version of the object, and tells whether it takes back what this node said of
// its readiness.
func (n *Keeper) learnNode(node *corev1.Node) bool {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.seen = node
	for _, c := range node.Status.Conditions {
		// This node itself never says so: it may not know what its Podman can do, but that it is there.
		if c.Type == corev1.NodeReady && c.Status == corev1.ConditionUnknown {
			return true
		}
	}
	return false
}

// catchUp makes what others wrote the version that the next write starts from.
func (n *Keeper) catchUp() {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.seen != nil && n.told != nil && n.seen.UID == n.told.UID && revision(n.seen) > revision(n.told) {
		n.told = n.seen
	}
	n.seen = nil
}

// revision compares versions of one object; the store's are numbers that grow, across merges too.
func revision(node *corev1.Node) uint64 {
	r, err := strconv.ParseUint(node.ResourceVersion, 10, 64)
	if err != nil {
		return 0
	}
	return r
}
