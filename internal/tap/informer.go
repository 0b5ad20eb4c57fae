package tap

import (
	"time"

	"k8s.io/client-go/tools/cache"
)

// An informer is the base's, with event handlers and indexes going through the tap.
type informer struct {
	cache.SharedIndexInformer
	tap *Tap
}

// AddEventHandler adds a handler that belongs to the tap.
func (i *informer) AddEventHandler(handler cache.ResourceEventHandler) (cache.ResourceEventHandlerRegistration, error) {
	return i.tap.hook(i.SharedIndexInformer, func() (cache.ResourceEventHandlerRegistration, error) {
		return separate{i.SharedIndexInformer}.AddEventHandler(handler)
	})
}

// AddEventHandlerWithResyncPeriod adds a handler that belongs to the tap.
func (i *informer) AddEventHandlerWithResyncPeriod(handler cache.ResourceEventHandler, period time.Duration,
) (cache.ResourceEventHandlerRegistration, error) {
	return i.tap.hook(i.SharedIndexInformer, func() (cache.ResourceEventHandlerRegistration, error) {
		return separate{i.SharedIndexInformer}.AddEventHandlerWithResyncPeriod(handler, period)
	})
}

// AddEventHandlerWithOptions adds a handler that belongs to the tap.
func (i *informer) AddEventHandlerWithOptions(handler cache.ResourceEventHandler, options cache.HandlerOptions,
) (cache.ResourceEventHandlerRegistration, error) {
	return i.tap.hook(i.SharedIndexInformer, func() (cache.ResourceEventHandlerRegistration, error) {
		return separate{i.SharedIndexInformer}.AddEventHandlerWithOptions(handler, options)
	})
}

// RemoveEventHandler removes a handler that was added through a tap.
func (i *informer) RemoveEventHandler(handle cache.ResourceEventHandlerRegistration) error {
	if h, ok := handle.(*hook); ok {
		return h.detach()
	}
	return i.SharedIndexInformer.RemoveEventHandler(handle)
}
