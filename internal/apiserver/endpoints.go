package apiserver

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"sync/atomic"
	"time"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	apiequality "k8s.io/apimachinery/pkg/api/equality"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/wait"
	"k8s.io/apiserver/pkg/storage"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/util/retry"
	"k8s.io/kubernetes/pkg/controlplane/reconcilers"
)

// endpoints keeps this node's address in the endpoints of the `kubernetes` Service. Every node
// owns the address that carries its name and touches no other; whoever knows that a node has gone
// removes the rest. So any number of nodes can do this at the same time.
type endpoints struct {
	node    string
	adapter reconcilers.EndpointsAdapter
	stopped atomic.Bool
}

var _ reconcilers.EndpointReconciler = (*endpoints)(nil)

func newEndpoints(node string, client kubernetes.Interface) *endpoints {
	return &endpoints{node: node, adapter: reconcilers.NewEndpointsAdapter(client.CoreV1(), client.DiscoveryV1())}
}

// ValidateIP implements reconcilers.EndpointReconciler.
func (e *endpoints) ValidateIP(net.IP) error { return nil }

// ReconcileEndpoints makes ip the address of this node, in Endpoints and EndpointSlice. A loopback
// address means nothing to others and is not published (upstream's validation refuses it).
func (e *endpoints) ReconcileEndpoints(service string, ip net.IP, ports []corev1.EndpointPort, _ bool) error {
	addr, ok := netip.AddrFromSlice(ip)
	if !ok || addr.Unmap().IsLoopback() || e.stopped.Load() {
		return nil
	}
	mine := corev1.EndpointAddress{IP: addr.Unmap().String(), NodeName: &e.node}
	// All nodes write one object, and may all have started just now.
	err := retry.OnError(crowd(), func(err error) bool {
		return apierrors.IsConflict(err) || apierrors.IsAlreadyExists(err)
	}, func() error { return e.write(service, mine, ports) })
	if err != nil {
		return fmt.Errorf("write endpoints of service %s: %w", service, err)
	}
	return nil
}

// crowd spreads the tries of fifty nodes that write one object over some seconds.
func crowd() wait.Backoff {
	return wait.Backoff{Duration: 5 * time.Millisecond, Factor: 1.7, Jitter: 1, Steps: 12}
}

// write makes one try.
func (e *endpoints) write(service string, mine corev1.EndpointAddress, ports []corev1.EndpointPort) error {
	cur, err := e.adapter.Get(metav1.NamespaceDefault, service, metav1.GetOptions{})
	if apierrors.IsNotFound(err) {
		cur = &corev1.Endpoints{ //nolint:staticcheck // deprecated, but old clients and conformance read it
			ObjectMeta: metav1.ObjectMeta{Name: service, Namespace: metav1.NamespaceDefault},
		}
	} else if err != nil {
		return err
	}
	want := withAddress(cur, mine, ports)
	switch {
	case cur.ResourceVersion == "":
		_, err = e.adapter.Create(metav1.NamespaceDefault, want)
	case apiequality.Semantic.DeepEqual(cur, want):
		err = e.adapter.EnsureEndpointSliceFromEndpoints(metav1.NamespaceDefault, cur)
	default:
		_, err = e.adapter.Update(metav1.NamespaceDefault, want)
	}
	return err
}

// RemoveEndpoints does nothing at start and at stop: a restart must not take the address away
// from clients for a moment, and a node that has gone is noticed by the others.
func (e *endpoints) RemoveEndpoints(service string, _ net.IP, _ []corev1.EndpointPort) error {
	return storage.NewKeyNotFoundError(service, 0)
}

// StopReconciling implements reconcilers.EndpointReconciler.
func (e *endpoints) StopReconciling() { e.stopped.Store(true) }

// Destroy implements reconcilers.EndpointReconciler.
func (e *endpoints) Destroy() {}

// withAddress returns a copy of cur in which mine is the only address of its node, in one subset
// with the given ports, sorted by address. Addresses without a node name were never ours.
func withAddress(cur *corev1.Endpoints, mine corev1.EndpointAddress, ports []corev1.EndpointPort) *corev1.Endpoints { //nolint:staticcheck // see above
	out := cur.DeepCopy()
	addrs := []corev1.EndpointAddress{mine}
	for _, s := range cur.Subsets {
		for _, a := range s.Addresses {
			if a.NodeName != nil && *a.NodeName != *mine.NodeName && a.IP != mine.IP {
				addrs = append(addrs, a)
			}
		}
	}
	slices.SortFunc(addrs, func(a, b corev1.EndpointAddress) int {
		x, errX := netip.ParseAddr(a.IP)
		y, errY := netip.ParseAddr(b.IP)
		if errors.Join(errX, errY) != nil {
			return 0
		}
		return x.Compare(y)
	})
	if out.Labels == nil {
		out.Labels = map[string]string{}
	}
	out.Labels[discoveryv1.LabelSkipMirror] = "true"                        // we write the slice ourselves
	out.Subsets = []corev1.EndpointSubset{{Addresses: addrs, Ports: ports}} //nolint:staticcheck // see above
	return out
}
