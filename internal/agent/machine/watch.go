package machine

import (
	"context"
	"strconv"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/informers"
	"k8s.io/client-go/tools/cache"
)

const (
	// objectFirst and objectMost bound the wait before the node contradicts somebody who wrote its
	// conditions: the first time at once, then ever later. Two who disagree (the leader hears nothing of
	// a node that can still write) must not write all the time.
	objectFirst = time.Second
	objectMost  = 30 * time.Second
	// leaving is how long a node that was cordoned stays away when its object is deleted. That is how a node
	// leaves the swarm (podman-swarm leave): it runs on, and can write, for 90 s at most.
	leaving = 2 * time.Minute
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
	_, _ = factory.Core().V1().Nodes().Informer().AddEventHandler(n.learner(func() { nudge(contradicted) }))
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

// learner hears of the object. It calls contradicted when somebody took back what this node said: its
// readiness, or all of it, since the object was deleted or is another one.
func (n *Keeper) learner(contradicted func()) cache.ResourceEventHandler {
	var last types.UID // handlers are called one at a time
	learn := func(obj any) {
		node, ok := obj.(*corev1.Node)
		if !ok {
			return
		}
		another := last != "" && last != node.UID
		last = node.UID
		if n.learnNode(node) || another {
			contradicted()
		}
	}
	return cache.ResourceEventHandlerFuncs{
		AddFunc: learn, UpdateFunc: func(_, obj any) { learn(obj) },
		DeleteFunc: func(obj any) {
			if d, ok := obj.(cache.DeletedFinalStateUnknown); ok {
				obj = d.Obj
			}
			node, ok := obj.(*corev1.Node)
			if !ok {
				return
			}
			n.mu.Lock()
			n.seen, n.gone = nil, node
			n.mu.Unlock()
			if !node.Spec.Unschedulable { // see leaving
				last = "" // the next one is our own
				contradicted()
			}
		},
	}
}

// learnNode remembers a version of the object, and tells whether it takes back what this node said of
// its readiness.
func (n *Keeper) learnNode(node *corev1.Node) bool {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.seen, n.gone = node, nil
	for _, c := range node.Status.Conditions {
		// This node itself never says so: it may not know what its Podman can do, but that it is there.
		if c.Type == corev1.NodeReady && c.Status == corev1.ConditionUnknown {
			return true
		}
	}
	return false
}

// catchUp makes what others wrote the version that the next write starts from. What was told of an object that
// was deleted, or replaced by another one (a backup was restored), is forgotten: of the other one nothing is.
func (n *Keeper) catchUp() {
	n.mu.Lock()
	seen, gone := n.seen, n.gone
	n.seen, n.gone = nil, nil
	n.mu.Unlock()
	switch {
	case gone != nil && n.told != nil && (gone.UID == n.told.UID || revision(gone) > revision(n.told)):
		n.forget(gone)
	case seen == nil:
	case n.told == nil:
		n.absent = time.Time{} // somebody else has made it
	case revision(seen) <= revision(n.told):
	case seen.UID == n.told.UID:
		n.told = seen
	default:
		n.told = nil
	}
}

// forget has the object made anew, that of a node that may be leaving only when it has not left after all. last
// is its last version.
//
// Whoever was removed (psctl node rm) does not come back by this. Only nodes that are not alive are removed, and
// the removal is written before the object is deleted: those who have heard of the one have heard of the other,
// and take no connection from that node any more. It hears of the removal itself when they refuse it, and ends.
func (n *Keeper) forget(last *corev1.Node) {
	n.told = nil
	if last.Spec.Unschedulable {
		n.absent = n.cfg.Now().Add(leaving)
	}
}

// revision compares versions of one object; the store's are numbers that grow, across merges too.
func revision(node *corev1.Node) uint64 {
	r, err := strconv.ParseUint(node.ResourceVersion, 10, 64)
	if err != nil {
		return 0
	}
	return r
}
