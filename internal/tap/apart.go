package tap

import (
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/meta"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/client-go/informers"
	"k8s.io/client-go/metadata/metadatainformer"
	"k8s.io/client-go/tools/cache"
)

// apart tells a handler of an object that took the place of another with the same name by a
// deletion and an addition. An informer that has listed again calls that an update. Many handlers
// of upstream's take no notice of a UID that changed; the garbage collector would keep what the
// former object owned for ever. Two halves of a cluster that become one bring such updates about.
//
// A pod that is bound to another node than before is such an object too: both halves may have bound it. Upstream's
// scheduler ends the process when an update tells it so.
type apart struct{ cache.ResourceEventHandler }

// OnUpdate passes an update on.
func (a apart) OnUpdate(before, now any) {
	if sameObject(before, now) {
		a.ResourceEventHandler.OnUpdate(before, now)
		return
	}
	a.OnDelete(before)
	a.OnAdd(now, false)
}

func sameObject(before, now any) bool {
	x, err := meta.Accessor(before)
	if err != nil {
		return true
	}
	y, err := meta.Accessor(now)
	return err != nil || x.GetUID() == y.GetUID() && !rebound(before, now)
}

func rebound(before, now any) bool {
	x, ok := before.(*corev1.Pod)
	if !ok || x.Spec.NodeName == "" {
		return false
	}
	y, ok := now.(*corev1.Pod)
	return ok && x.Spec.NodeName != y.Spec.NodeName
}

// separate is an informer all of whose handlers are told apart.
type separate struct{ cache.SharedIndexInformer }

// AddEventHandler adds a handler.
func (s separate) AddEventHandler(handler cache.ResourceEventHandler) (cache.ResourceEventHandlerRegistration, error) {
	return s.SharedIndexInformer.AddEventHandler(apart{handler})
}

// AddEventHandlerWithResyncPeriod adds a handler.
func (s separate) AddEventHandlerWithResyncPeriod(handler cache.ResourceEventHandler, period time.Duration,
) (cache.ResourceEventHandlerRegistration, error) {
	return s.SharedIndexInformer.AddEventHandlerWithResyncPeriod(apart{handler}, period)
}

// AddEventHandlerWithOptions adds a handler.
func (s separate) AddEventHandlerWithOptions(handler cache.ResourceEventHandler, options cache.HandlerOptions,
) (cache.ResourceEventHandlerRegistration, error) {
	return s.SharedIndexInformer.AddEventHandlerWithOptions(apart{handler}, options)
}

// Separate is a factory of informers of metadata whose handlers are told of an object that took the
// place of another as those of a Tap are.
func Separate(factory metadatainformer.SharedInformerFactory) metadatainformer.SharedInformerFactory {
	return separateFactory{factory}
}

type separateFactory struct {
	metadatainformer.SharedInformerFactory
}

// ForResource returns the informer for the resource.
func (f separateFactory) ForResource(resource schema.GroupVersionResource) informers.GenericInformer {
	return separateGeneric{f.SharedInformerFactory.ForResource(resource)}
}

type separateGeneric struct{ informers.GenericInformer }

// Informer returns the informer.
func (g separateGeneric) Informer() cache.SharedIndexInformer {
	return separate{g.GenericInformer.Informer()}
}
