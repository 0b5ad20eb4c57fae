package control

import (
	"context"
	"errors"
	"fmt"
	"sync/atomic"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/metadata"
	"k8s.io/kubernetes/cmd/kube-controller-manager/app"
	"k8s.io/kubernetes/cmd/kube-controller-manager/names"
	"k8s.io/kubernetes/pkg/controller/namespace"
)

// newNamespaceController is upstream's, whose constructor asks which kinds are served and ends the process when it
// gets no answer: as on a node that leads no more before its controllers have begun. Here that is an error like that
// of any other controller.
func newNamespaceController(ctx context.Context, _ clients, shared app.ControllerContext) (app.Controller, error) {
	config, err := shared.NewClientConfig("namespace-controller")
	if err != nil {
		return nil, fmt.Errorf("make client: %w", err)
	}
	client, err := newClient("namespace-controller", config)
	if err != nil {
		return nil, err
	}
	metadataClient, err := metadata.NewForConfig(config)
	if err != nil {
		return nil, fmt.Errorf("make metadata client: %w", err)
	}
	kinds := &kinds{ask: client.Discovery().ServerPreferredNamespacedResources}
	if err := kinds.begin(); err != nil {
		return nil, err
	}
	settings := shared.ComponentConfig.NamespaceController
	controller := namespace.NewNamespaceController(ctx, client, metadataClient, kinds.get,
		shared.InformerFactory.Core().V1().Namespaces(), settings.NamespaceSyncPeriod.Duration, corev1.FinalizerKubernetes)
	return own{names.NamespaceController, func(ctx context.Context) {
		controller.Run(ctx, int(settings.ConcurrentNamespaceSyncs))
	}}, nil
}

// kinds answers the constructor with what was known before it, and everybody later with what is known then.
type kinds struct {
	ask   func() ([]*metav1.APIResourceList, error)
	first atomic.Pointer[[]*metav1.APIResourceList]
}

// begin asks for the kinds; some are enough for a beginning, as for upstream.
func (k *kinds) begin() error {
	found, err := k.ask()
	if len(found) == 0 {
		if err == nil {
			err = errors.New("there are none")
		}
		return fmt.Errorf("ask which kinds are served: %w", err)
	}
	k.first.Store(&found)
	return nil
}

func (k *kinds) get() ([]*metav1.APIResourceList, error) {
	if found := k.first.Swap(nil); found != nil {
		return *found, nil
	}
	return k.ask()
}
