package control

import (
	"context"
	"fmt"
	"log/slog"
	"slices"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/client-go/kubernetes"
	listers "k8s.io/client-go/listers/core/v1"
	"k8s.io/client-go/tools/cache"
	"k8s.io/kubernetes/pkg/controlplane/reconcilers"

	"github.com/podman-swarm/podman-swarm/internal/control/liveness"
	"github.com/podman-swarm/podman-swarm/internal/loop"
)

const (
	apiService = "kubernetes"
	// endpointsDelay gathers what happens at the same time into one write.
	endpointsDelay = 100 * time.Millisecond
)

// endpointsController takes from the endpoints of the `kubernetes` Service the addresses of nodes that
// are dead or gone. Each node's API server writes its own address, and none but its own; clients in pods
// must not be sent where nobody answers.
type endpointsController struct {
	adapter reconcilers.EndpointsAdapter
	nodes   listers.NodeLister
	source  liveness.Source
	synced  cache.DoneChecker
	loop    *loop.Loop
}

func newEndpointsController(client kubernetes.Interface, nodes cache.SharedIndexInformer, source liveness.Source, log *slog.Logger) (*endpointsController, error) {
	c := &endpointsController{
		adapter: reconcilers.NewEndpointsAdapter(client.CoreV1(), client.DiscoveryV1()),
		nodes:   listers.NewNodeLister(nodes.GetIndexer()), source: source,
	}
	c.loop = loop.New(c.Name(), c.reconcile, loop.Options{Log: log})
	registration, err := nodes.AddEventHandler(cache.ResourceEventHandlerFuncs{DeleteFunc: func(any) { c.review() }})
	if err != nil {
		return nil, fmt.Errorf("watch nodes: %w", err)
	}
	c.synced = registration.HasSyncedChecker()
	return c, nil
}

// Name names the controller in logs and metrics.
func (*endpointsController) Name() string { return "kubernetes-endpoints-controller" }

// Run blocks until ctx ends.
func (c *endpointsController) Run(ctx context.Context) {
	if cache.WaitFor(ctx, c.Name(), c.synced) {
		c.loop.Run(ctx)
	}
}

// review has the endpoints looked at: who is alive has changed.
func (c *endpointsController) review() { c.loop.AddAfter(apiService, endpointsDelay) }

func (c *endpointsController) reconcile(_ context.Context, service string) error {
	have, err := c.adapter.Get(metav1.NamespaceDefault, service, metav1.GetOptions{})
	if apierrors.IsNotFound(err) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("read endpoints of service %s: %w", service, err)
	}
	nodes, err := c.nodes.List(labels.Everything())
	if err != nil {
		return fmt.Errorf("list nodes: %w", err)
	}
	want, changed := withoutGone(have, nodes, c.source.Members())
	if !changed {
		return nil
	}
	if _, err := c.adapter.Update(metav1.NamespaceDefault, want); err != nil {
		return fmt.Errorf("write endpoints of service %s: %w", service, err)
	}
	return nil
}

// withoutGone returns the endpoints without the addresses of nodes that are dead, or that there are no
// Nodes of; a member that is alive may be about to make its Node. The last address stays: it is better
// than none.
func withoutGone(have *corev1.Endpoints, nodes []*corev1.Node, members []Member) (want *corev1.Endpoints, changed bool) { //nolint:staticcheck // deprecated, but served
	gone := map[string]bool{}
	for _, m := range members {
		gone[m.Name] = !m.Alive
	}
	exists := map[string]bool{}
	for _, n := range nodes {
		exists[n.Name] = true
	}
	want = have.DeepCopy()
	left := 0
	for i := range want.Subsets {
		s := &want.Subsets[i]
		s.Addresses = slices.DeleteFunc(s.Addresses, func(a corev1.EndpointAddress) bool {
			if a.NodeName == nil {
				return false
			}
			dead, known := gone[*a.NodeName]
			drop := dead || !known && !exists[*a.NodeName]
			changed = changed || drop
			return drop
		})
		left += len(s.Addresses)
	}
	return want, changed && left > 0
}
