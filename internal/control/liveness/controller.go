package liveness

import (
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/informers"
	"k8s.io/client-go/kubernetes"
	listers "k8s.io/client-go/listers/core/v1"
	"k8s.io/client-go/tools/cache"
	"k8s.io/client-go/tools/record"

	"github.com/podman-swarm/podman-swarm/internal/loop"
	"github.com/podman-swarm/podman-swarm/internal/single"
)

const (
	// patches is how many pods are written at a time: they share commits.
	patches = 16
	// turn is the wait after a pod of a dead node was written by somebody else.
	turn = time.Second
	// behind is the wait for an informer that did not know the newest version of a node.
	behind = 50 * time.Millisecond
)

// Lost knows the pods that a merge took from the API while they may still run. What took the place of
// one that must not run twice waits until somebody says that it has ended: its node, or the Controller.
type Lost interface {
	// Nodes are those with such pods of which nobody has said so.
	Nodes() []string
	// End says it of those of a node.
	End(ctx context.Context, node string) error
	// Changed returns a channel that is closed when Nodes may give another answer: take it before looking.
	Changed() <-chan struct{}
}

// Config is what a Controller needs.
type Config struct {
	Client    kubernetes.Interface
	Informers informers.SharedInformerFactory
	Bench     *Bench
	Lost      Lost // nil: there are none
	Events    record.EventRecorder
	Log       *slog.Logger
	Now       func() time.Time
}

// Controller writes down what the bench says of dead nodes.
type Controller struct {
	cfg    Config
	nodes  listers.NodeLister
	pods   listers.PodLister
	claims listers.PersistentVolumeClaimLister
	synced []cache.DoneChecker
	loop   *loop.Loop
}

// New returns a Controller; the informers need not run yet.
func New(cfg Config) (*Controller, error) {
	core := cfg.Informers.Core().V1()
	c := &Controller{
		cfg: cfg, nodes: core.Nodes().Lister(), pods: core.Pods().Lister(), claims: core.PersistentVolumeClaims().Lister(),
	}
	c.loop = loop.New(c.Name(), c.reconcile, loop.Options{Workers: 4, Log: cfg.Log})
	if err := c.listen(core.Nodes().Informer(), cache.ResourceEventHandlerFuncs{
		// Who comes, goes and is fenced changes what the majority is.
		AddFunc: func(any) { cfg.Bench.Review() },
		UpdateFunc: func(old, obj any) {
			if node := obj.(*corev1.Node); old.(*corev1.Node).Annotations[FencedAnnotation] != node.Annotations[FencedAnnotation] {
				cfg.Bench.Review()
			} else {
				c.loop.Add(node.Name)
			}
		},
		DeleteFunc: func(any) { cfg.Bench.Review() },
	}); err != nil {
		return nil, err
	}
	pod := func(obj any) {
		if p := obj.(*corev1.Pod); p.Spec.NodeName != "" && (p.DeletionTimestamp != nil || NotReady(p, time.Time{}) != nil) {
			// Not at once: if its node can still write, the two must not take turns all the time.
			c.loop.AddAfter(p.Spec.NodeName, turn)
		}
	}
	if err := c.listen(core.Pods().Informer(), cache.ResourceEventHandlerFuncs{
		AddFunc: pod, UpdateFunc: func(_, obj any) { pod(obj) },
	}); err != nil {
		return nil, err
	}
	return c, c.listen(core.PersistentVolumeClaims().Informer(), cache.ResourceEventHandlerFuncs{})
}

func (c *Controller) listen(informer cache.SharedIndexInformer, handler cache.ResourceEventHandlerFuncs) error {
	registration, err := informer.AddEventHandler(handler)
	if err != nil {
		return fmt.Errorf("watch what liveness depends on: %w", err)
	}
	c.synced = append(c.synced, registration.HasSyncedChecker())
	return nil
}

// Name names the controller in logs and metrics.
func (*Controller) Name() string { return "node-liveness-controller" }

// Run blocks until ctx ends.
func (c *Controller) Run(ctx context.Context) {
	if !cache.WaitFor(ctx, c.Name(), c.synced...) {
		return
	}
	var lost sync.WaitGroup
	lost.Go(func() { c.watchLost(ctx) })
	c.loop.Run(ctx)
	lost.Wait()
}

// Review has every node judged again.
func (c *Controller) Review() {
	nodes, err := c.nodes.List(labels.Everything())
	if err != nil {
		c.cfg.Log.Error("list nodes", "err", err)
		return
	}
	for _, n := range nodes {
		c.loop.Add(n.Name)
	}
	c.reviewLost()
}

func (c *Controller) reconcile(ctx context.Context, name string) error {
	node, err := c.nodes.Get(name)
	if apierrors.IsNotFound(err) {
		return c.departed(ctx, name)
	}
	if err != nil {
		return fmt.Errorf("get node %s: %w", name, err)
	}
	v, err := c.cfg.Bench.Verdict(node)
	if err != nil {
		return fmt.Errorf("judge node %s: %w", name, err)
	}
	if !v.Again.IsZero() {
		c.loop.AddAfter(name, max(v.Again.Sub(c.cfg.Now()), 0))
	}
	if !v.Dead {
		return c.unfence(ctx, node)
	}
	// Endpoints must not wait for the node to be written, nor the other way round.
	var work errgroup.Group
	work.Go(func() error { return c.markNode(ctx, node, v) })
	work.Go(func() error { return c.markPods(ctx, node, v) })
	work.Go(func() error { return c.endLost(ctx, name, v) })
	return work.Wait()
}

// markNode makes the conditions of a dead node Unknown.
func (c *Controller) markNode(ctx context.Context, node *corev1.Node, v Verdict) error {
	conditions, changed := Conditions(node.Status.Conditions, v.Since, c.cfg.Now())
	if !changed {
		return nil
	}
	// The resourceVersion makes this a compare-and-swap: the node itself may be writing.
	patch, err := json.Marshal(map[string]any{
		"metadata": map[string]any{"resourceVersion": node.ResourceVersion},
		"status":   map[string]any{"conditions": conditions},
	})
	if err != nil {
		return fmt.Errorf("encode node %s: %w", node.Name, err)
	}
	_, err = c.cfg.Client.CoreV1().Nodes().Patch(ctx, node.Name, types.StrategicMergePatchType, patch, metav1.PatchOptions{}, "status")
	switch {
	case apierrors.IsConflict(err):
		c.loop.AddAfter(node.Name, behind)
		return nil
	case apierrors.IsNotFound(err):
		return nil
	case err != nil:
		return fmt.Errorf("write conditions of node %s: %w", node.Name, err)
	}
	c.cfg.Log.Warn("node is unreachable", "node", node.Name, "since", v.Since.UTC().Format(time.RFC3339))
	c.event(node, corev1.EventTypeNormal, "NodeNotReady", "Node %s status is now: NodeNotReady", node.Name)
	return nil
}

// markPods makes the pods of a dead node not ready, and removes those that have ended for certain.
func (c *Controller) markPods(ctx context.Context, node *corev1.Node, v Verdict) error {
	pods, err := c.pods.List(labels.Everything())
	if err != nil {
		return fmt.Errorf("list pods: %w", err)
	}
	// Not errgroup's context: one pod that cannot be written keeps no other from it.
	var work errgroup.Group
	work.SetLimit(patches)
	for _, pod := range pods {
		if pod.Spec.NodeName != node.Name {
			continue
		}
		if v.Force && pod.DeletionTimestamp != nil && single.Pod(pod, c.claim(pod.Namespace)) {
			work.Go(func() error { return c.remove(ctx, pod, v) })
		} else if condition := NotReady(pod, c.cfg.Now()); condition != nil {
			work.Go(func() error { return c.markPod(ctx, pod, condition) })
		}
	}
	return work.Wait()
}

func (c *Controller) claim(namespace string) func(string) *corev1.PersistentVolumeClaim {
	return func(name string) *corev1.PersistentVolumeClaim {
		claim, err := c.claims.PersistentVolumeClaims(namespace).Get(name)
		if err != nil {
			return nil
		}
		return claim
	}
}

func (c *Controller) markPod(ctx context.Context, pod *corev1.Pod, condition *corev1.PodCondition) error {
	patch, err := json.Marshal(map[string]any{
		"metadata": map[string]any{"uid": pod.UID},
		"status":   map[string]any{"conditions": []corev1.PodCondition{*condition}},
	})
	if err != nil {
		return fmt.Errorf("encode pod %s/%s: %w", pod.Namespace, pod.Name, err)
	}
	_, err = c.cfg.Client.CoreV1().Pods(pod.Namespace).Patch(ctx, pod.Name, types.StrategicMergePatchType, patch, metav1.PatchOptions{}, "status")
	switch {
	case apierrors.IsNotFound(err), apierrors.IsConflict(err): // another pod of that name by now, or none
		return nil
	case err != nil:
		return fmt.Errorf("mark pod %s/%s not ready: %w", pod.Namespace, pod.Name, err)
	}
	c.event(pod, corev1.EventTypeWarning, "NodeNotReady", "Node is not ready")
	return nil
}

// remove takes a pod from the API without its node's word.
func (c *Controller) remove(ctx context.Context, pod *corev1.Pod, v Verdict) error {
	zero := int64(0)
	err := c.cfg.Client.CoreV1().Pods(pod.Namespace).Delete(ctx, pod.Name, metav1.DeleteOptions{
		GracePeriodSeconds: &zero, Preconditions: &metav1.Preconditions{UID: &pod.UID},
	})
	switch {
	case apierrors.IsNotFound(err), apierrors.IsConflict(err):
		return nil
	case err != nil:
		return fmt.Errorf("remove pod %s/%s of a dead node: %w", pod.Namespace, pod.Name, err)
	}
	why := "has had the time to stop it"
	if v.Fenced {
		why = "is fenced"
	}
	c.event(pod, corev1.EventTypeWarning, "NodeLost", "Removed without the word of node %s, which is unreachable since %s and %s",
		pod.Spec.NodeName, v.Since.UTC().Format(time.RFC3339), why)
	return nil
}

// unfence ends the fence of a node that is back.
func (c *Controller) unfence(ctx context.Context, node *corev1.Node) error {
	if node.Annotations[FencedAnnotation] == "" {
		return nil
	}
	patch, err := json.Marshal(map[string]any{
		"metadata": map[string]any{"annotations": map[string]any{FencedAnnotation: nil}},
	})
	if err != nil {
		return fmt.Errorf("encode node %s: %w", node.Name, err)
	}
	_, err = c.cfg.Client.CoreV1().Nodes().Patch(ctx, node.Name, types.MergePatchType, patch, metav1.PatchOptions{})
	if err != nil && !apierrors.IsNotFound(err) {
		return fmt.Errorf("end the fence of node %s: %w", node.Name, err)
	}
	c.event(node, corev1.EventTypeNormal, "FenceEnded", "Node %s is reachable, so its fence has ended", node.Name)
	return nil
}

// event writes an event. Those of nodes carry the name as UID, by upstream's convention.
func (c *Controller) event(about runtime.Object, kind, reason, format string, args ...any) {
	if node, ok := about.(*corev1.Node); ok {
		about = &corev1.ObjectReference{Kind: "Node", APIVersion: "v1", Name: node.Name, UID: types.UID(node.Name)}
	}
	c.cfg.Events.Eventf(about, kind, reason, format, args...)
}
