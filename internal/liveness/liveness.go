package liveness

import (
	"context"
	"errors"
	"fmt"
	"log/slog"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"
	corelisters "k8s.io/client-go/listers/core/v1"
	"k8s.io/client-go/tools/cache"

	"github.com/podman-swarm/podman-swarm/internal/loop"
	"github.com/podman-swarm/podman-swarm/internal/tap"
)

// Config is what liveness needs.
type Config struct {
	Client    kubernetes.Interface
	Informers *tap.Source
	Log       *slog.Logger
}

// Run keeps the taints of all nodes true to their conditions until ctx ends. It returns nil then.
func Run(ctx context.Context, c Config) error {
	tapped := c.Informers.Open()
	nodes := tapped.Core().V1().Nodes()
	l := &liveness{client: c.Client, nodes: nodes.Lister(), log: c.Log.With("part", "liveness")}
	reconcile := loop.New("liveness", l.reconcile, loop.Options{Log: l.log})
	add := func(object any) {
		if key, err := cache.DeletionHandlingMetaNamespaceKeyFunc(object); err == nil {
			reconcile.Add(key)
		}
	}
	_, err := nodes.Informer().AddEventHandler(cache.ResourceEventHandlerFuncs{
		AddFunc: add, UpdateFunc: func(_, object any) { add(object) },
	})
	if err != nil {
		return errors.Join(fmt.Errorf("watch nodes: %w", err), tapped.Close())
	}
	tapped.Start(ctx.Done())
	reconcile.Run(ctx)
	return tapped.Close()
}

type liveness struct {
	client kubernetes.Interface
	nodes  corelisters.NodeLister
	log    *slog.Logger
}

// reconcile writes a node's taints when they are not what its conditions say.
func (l *liveness) reconcile(ctx context.Context, name string) error {
	node, err := l.nodes.Get(name)
	if apierrors.IsNotFound(err) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("get node %s: %w", name, err)
	}
	taints, changed := compile(node, metav1.Now())
	if !changed {
		return nil
	}
	node = node.DeepCopy()
	node.Spec.Taints = taints
	if _, err := l.client.CoreV1().Nodes().Update(ctx, node, metav1.UpdateOptions{}); err != nil && !apierrors.IsNotFound(err) {
		return fmt.Errorf("taint node %s: %w", name, err)
	}
	l.log.Info("node tainted by its conditions", "node", name, "taints", describe(taints))
	return nil
}

func describe(taints []corev1.Taint) []string {
	out := make([]string, 0, len(taints))
	for _, t := range taints {
		out = append(out, t.ToString())
	}
	return out
}
