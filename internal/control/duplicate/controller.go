package duplicate

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/informers"
	"k8s.io/client-go/kubernetes"
	listers "k8s.io/client-go/listers/core/v1"
	"k8s.io/client-go/tools/cache"
	"k8s.io/client-go/tools/record"

	"github.com/podman-swarm/podman-swarm/internal/loop"
)

const (
	servicesKey = "services"
	nodesKey    = "nodes"
	// settle gathers what a merge brings, and is the wait for an informer that is behind.
	settle = 200 * time.Millisecond
	// addressOwner is what upstream's allocator calls itself in the IPAddresses it makes.
	addressOwner = "ipallocator.k8s.io"
)

// Config is what a Controller needs.
type Config struct {
	// Client may write Services, IPAddresses and the status of Nodes.
	Client    kubernetes.Interface
	Informers informers.SharedInformerFactory
	Events    record.EventRecorder
	Log       *slog.Logger
}

// Controller repairs duplicates.
type Controller struct {
	cfg      Config
	services listers.ServiceLister
	nodes    listers.NodeLister
	synced   []cache.DoneChecker
	loop     *loop.Loop
}

// New returns a Controller; the informers need not run yet.
func New(cfg Config) (*Controller, error) {
	core := cfg.Informers.Core().V1()
	c := &Controller{cfg: cfg, services: core.Services().Lister(), nodes: core.Nodes().Lister()}
	c.loop = loop.New(c.Name(), c.reconcile, loop.Options{Log: cfg.Log})
	for key, informer := range map[string]cache.SharedIndexInformer{
		servicesKey: core.Services().Informer(), nodesKey: core.Nodes().Informer(),
	} {
		look := func(any) { c.loop.AddAfter(key, settle) }
		registration, err := informer.AddEventHandler(cache.ResourceEventHandlerFuncs{
			AddFunc: look, UpdateFunc: func(_, obj any) { look(obj) }, DeleteFunc: look,
		})
		if err != nil {
			return nil, fmt.Errorf("watch %s: %w", key, err)
		}
		c.synced = append(c.synced, registration.HasSyncedChecker())
	}
	return c, nil
}

// Name names the controller in logs and metrics.
func (*Controller) Name() string { return "duplicate-controller" }

// Run blocks until ctx ends.
func (c *Controller) Run(ctx context.Context) {
	if cache.WaitFor(ctx, c.Name(), c.synced...) {
		c.loop.Run(ctx)
	}
}

func (c *Controller) reconcile(ctx context.Context, key string) error {
	if key == nodesKey {
		return c.reconcileNodes(ctx)
	}
	all, err := c.services.List(labels.Everything())
	if err != nil {
		return fmt.Errorf("list services: %w", err)
	}
	var errs []error
	for _, s := range all {
		errs = append(errs, c.restore(ctx, s))
	}
	for _, m := range Services(all) {
		errs = append(errs, c.release(ctx, m))
	}
	return errors.Join(errs...)
}

// release takes from the newer Service what the older ones keep.
func (c *Controller) release(ctx context.Context, m Move) error {
	next, err := Release(m)
	if err != nil {
		return err
	}
	if err := c.update(ctx, next); err != nil {
		return fmt.Errorf("release duplicate addresses of service %s/%s: %w", next.Namespace, next.Name, err)
	}
	c.cfg.Events.Eventf(m.Service, corev1.EventTypeWarning, "AddressTaken",
		"An older Service has the same %s, so this one gets a fresh address", what(m))
	// The API server has released the address of both: it is by its name alone that it is known.
	var errs []error
	for ip, keeper := range m.Keepers {
		errs = append(errs, c.keep(ctx, ip, keeper))
	}
	return errors.Join(errs...)
}

func what(m Move) string {
	var parts []string
	for _, ip := range m.ClusterIPs {
		keeper := m.Keepers[ip]
		parts = append(parts, fmt.Sprintf("cluster IP %s (%s/%s)", ip, keeper.Namespace, keeper.Name))
	}
	for _, port := range m.NodePorts {
		parts = append(parts, fmt.Sprintf("node port %d", port))
	}
	return strings.Join(parts, " and ")
}

// restore finishes the move of a Service.
func (c *Controller) restore(ctx context.Context, s *corev1.Service) error {
	next, err := Restore(s, false)
	if next == nil || err != nil {
		return err
	}
	err = c.update(ctx, next)
	if apierrors.IsInvalid(err) { // somebody took a node port meanwhile
		if next, err = Restore(s, true); err == nil {
			err = c.update(ctx, next)
		}
	}
	if err != nil {
		return fmt.Errorf("give service %s/%s a fresh address: %w", s.Namespace, s.Name, err)
	}
	return nil
}

// update writes a Service unless somebody else has: then the informer brings it soon.
func (c *Controller) update(ctx context.Context, s *corev1.Service) error {
	got, err := c.cfg.Client.CoreV1().Services(s.Namespace).Update(ctx, s, metav1.UpdateOptions{})
	switch {
	case apierrors.IsConflict(err), apierrors.IsNotFound(err):
		c.loop.AddAfter(servicesKey, settle)
		return nil
	case err != nil:
		return err
	}
	if _, pending := s.Annotations[PendingAnnotation]; !pending {
		c.cfg.Events.Eventf(got, corev1.EventTypeNormal, "AddressChanged", "Cluster IP is now %s, node ports are %v",
			got.Spec.ClusterIP, nodePorts(&got.Spec))
		c.cfg.Log.Warn("a service has got a fresh address, since an older one has its own", "service", got.Namespace+"/"+got.Name, "address", got.Spec.ClusterIP)
	}
	return nil
}

// keep makes sure that an address is on record as the keeper's.
func (c *Controller) keep(ctx context.Context, ip string, keeper *corev1.Service) error {
	addr, err := netip.ParseAddr(ip)
	if err != nil {
		return fmt.Errorf("cluster IP of service %s/%s: %w", keeper.Namespace, keeper.Name, err)
	}
	family := "IPv4"
	if addr.Is6() {
		family = "IPv6"
	}
	_, err = c.cfg.Client.NetworkingV1().IPAddresses().Create(ctx, &networkingv1.IPAddress{
		ObjectMeta: metav1.ObjectMeta{Name: addr.String(), Labels: map[string]string{
			networkingv1.LabelIPAddressFamily: family, networkingv1.LabelManagedBy: addressOwner,
		}},
		Spec: networkingv1.IPAddressSpec{ParentRef: &networkingv1.ParentReference{
			Resource: "services", Namespace: keeper.Namespace, Name: keeper.Name,
		}},
	}, metav1.CreateOptions{})
	if err != nil && !apierrors.IsAlreadyExists(err) {
		return fmt.Errorf("keep %s for service %s/%s: %w", ip, keeper.Namespace, keeper.Name, err)
	}
	return nil
}

// reconcileNodes says which Nodes share a pod range.
func (c *Controller) reconcileNodes(ctx context.Context) error {
	all, err := c.nodes.List(labels.Everything())
	if err != nil {
		return fmt.Errorf("list nodes: %w", err)
	}
	wrong := Ranges(all)
	var errs []error
	for _, n := range all {
		if condition := Condition(n, wrong[n.Name], metav1.Now()); condition != nil {
			errs = append(errs, c.tell(ctx, n, condition))
		}
	}
	return errors.Join(errs...)
}

func (c *Controller) tell(ctx context.Context, node *corev1.Node, condition *corev1.NodeCondition) error {
	patch, err := json.Marshal(map[string]any{"status": map[string]any{"conditions": []corev1.NodeCondition{*condition}}})
	if err != nil {
		return fmt.Errorf("encode node %s: %w", node.Name, err)
	}
	_, err = c.cfg.Client.CoreV1().Nodes().Patch(ctx, node.Name, types.StrategicMergePatchType, patch, metav1.PatchOptions{}, "status")
	if err != nil && !apierrors.IsNotFound(err) {
		return fmt.Errorf("write condition %s of node %s: %w", condition.Type, node.Name, err)
	}
	if condition.Status == corev1.ConditionTrue {
		c.cfg.Events.Event(&corev1.ObjectReference{Kind: "Node", APIVersion: "v1", Name: node.Name, UID: types.UID(node.Name)},
			corev1.EventTypeWarning, string(PodRangeConflict), condition.Message)
	}
	return nil
}
