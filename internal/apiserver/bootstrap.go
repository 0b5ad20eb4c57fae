package apiserver

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"golang.org/x/sync/errgroup"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/wait"
	genericapiserver "k8s.io/apiserver/pkg/server"
	"k8s.io/client-go/kubernetes"
	"k8s.io/component-helpers/auth/rbac/reconciliation"
	schedulingapiv1 "k8s.io/kubernetes/pkg/apis/scheduling/v1"
	"k8s.io/kubernetes/plugin/pkg/auth/authorizer/rbac/bootstrappolicy"
)

const (
	// bootstrapTimeout bounds the creation of the objects that every cluster begins with.
	bootstrapTimeout = 30 * time.Second
	// bootstrapWorkers is how many of them are written at a time: they share commits.
	bootstrapWorkers = 16
)

// bootstrapHook replaces upstream's hooks that create the default roles and priority classes.
// Those do the same, but wait a second before they begin and then go one by one: more than
// half of the time until a server is ready.
func bootstrapHook(ensure func(context.Context, kubernetes.Interface) error) genericapiserver.PostStartHookFunc {
	return func(h genericapiserver.PostStartHookContext) error {
		client, err := kubernetes.NewForConfig(h.LoopbackClientConfig)
		if err != nil {
			return err
		}
		var last error
		err = wait.PollUntilContextTimeout(h, 100*time.Millisecond, bootstrapTimeout, true, func(ctx context.Context) (bool, error) {
			last = ensure(ctx, client)
			return last == nil, nil
		})
		if err != nil && h.Err() == nil {
			return errors.Join(err, last)
		}
		return nil
	}
}

// ensureRoles makes upstream's default roles and bindings exist with at least the permissions
// and subjects they should have.
func ensureRoles(ctx context.Context, client kubernetes.Interface) error {
	work, ctx := errgroup.WithContext(ctx)
	work.SetLimit(bootstrapWorkers)
	rbac := client.RbacV1()
	role := func(owner reconciliation.RuleOwner, m reconciliation.RuleOwnerModifier) {
		work.Go(func() error {
			return reconcile(ctx, owner.GetName(), func() error {
				_, err := (&reconciliation.ReconcileRoleOptions{Role: owner, Client: m, Confirm: true}).Run()
				return err
			})
		})
	}
	binding := func(b reconciliation.RoleBinding, m reconciliation.RoleBindingModifier) {
		work.Go(func() error {
			return reconcile(ctx, b.GetName(), func() error {
				_, err := (&reconciliation.ReconcileRoleBindingOptions{RoleBinding: b, Client: m, Confirm: true}).Run()
				return err
			})
		})
	}
	for _, r := range slices.Concat(bootstrappolicy.ClusterRoles(), bootstrappolicy.ControllerRoles()) {
		role(reconciliation.ClusterRoleRuleOwner{ClusterRole: &r}, reconciliation.ClusterRoleModifier{Client: rbac.ClusterRoles()})
	}
	for _, b := range slices.Concat(bootstrappolicy.ClusterRoleBindings(), bootstrappolicy.ControllerRoleBindings()) {
		binding(reconciliation.ClusterRoleBindingAdapter{ClusterRoleBinding: &b}, reconciliation.ClusterRoleBindingClientAdapter{Client: rbac.ClusterRoleBindings()})
	}
	namespaces := client.CoreV1().Namespaces()
	for _, roles := range bootstrappolicy.NamespaceRoles() {
		for _, r := range roles {
			role(reconciliation.RoleRuleOwner{Role: &r}, reconciliation.RoleModifier{Client: rbac, NamespaceClient: namespaces})
		}
	}
	for _, bindings := range bootstrappolicy.NamespaceRoleBindings() {
		for _, b := range bindings {
			binding(reconciliation.RoleBindingAdapter{RoleBinding: &b}, reconciliation.RoleBindingClientAdapter{Client: rbac, NamespaceClient: namespaces})
		}
	}
	return work.Wait()
}

// reconcile tries again when another node does the same at the same time.
func reconcile(ctx context.Context, name string, run func() error) error {
	for {
		err := run()
		switch {
		case err == nil:
			return nil
		case ctx.Err() != nil:
			return context.Cause(ctx)
		case !apierrors.IsConflict(err) && !apierrors.IsAlreadyExists(err):
			return fmt.Errorf("reconcile %s: %w", name, err)
		}
	}
}

// ensurePriorityClasses creates the two system priority classes.
func ensurePriorityClasses(ctx context.Context, client kubernetes.Interface) error {
	c := client.SchedulingV1().PriorityClasses()
	for _, want := range schedulingapiv1.SystemPriorityClasses() {
		_, err := c.Get(ctx, want.Name, metav1.GetOptions{})
		if apierrors.IsNotFound(err) {
			_, err = c.Create(ctx, want, metav1.CreateOptions{})
		}
		if err != nil && !apierrors.IsAlreadyExists(err) {
			return fmt.Errorf("create priority class %s: %w", want.Name, err)
		}
	}
	return nil
}
