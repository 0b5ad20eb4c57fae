package tap

import (
	"errors"
	"fmt"
	"sync"

	"k8s.io/client-go/tools/cache"
)

type addFunc func() (cache.ResourceEventHandlerRegistration, error)

// A hook is an event handler added through a tap. It is attached to the informer when the tap is
// started, not before: constructors of upstream add handlers first and make what those need
// afterwards, since nothing happens until their factory is started. On an informer that runs
// already the handler would be called in between.
type hook struct {
	informer cache.SharedIndexInformer
	add      addFunc
	// synced is closed when the handler has been told of every object there was at the start.
	synced chan struct{}

	mu       sync.Mutex
	attached cache.ResourceEventHandlerRegistration
	removed  bool
	failure  error
}

// attach adds the handler to the informer unless it was removed before.
func (h *hook) attach() error {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.removed {
		return ErrClosed
	}
	attached, err := h.add()
	if err != nil {
		h.failure = fmt.Errorf("add event handler: %w", err)
		return h.failure
	}
	h.attached = attached
	return nil
}

// waitForSync closes synced when the informer says so, or gives up when the tap is closed.
func (h *hook) waitForSync(closed <-chan struct{}) {
	h.mu.Lock()
	attached := h.attached
	h.mu.Unlock()
	select {
	case <-attached.HasSyncedChecker().Done():
		close(h.synced)
	case <-closed:
	}
}

// detach removes the handler, which may still be running afterwards.
func (h *hook) detach() error {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.removed = true
	if h.attached == nil {
		return nil
	}
	if err := h.informer.RemoveEventHandler(h.attached); err != nil {
		return fmt.Errorf("remove event handler: %w", err)
	}
	return nil
}

// remove removes the handler and waits until it is not running. It also returns why the handler
// could not be attached, if so.
func (h *hook) remove() error {
	err := h.detach()
	<-h.ShutdownChan()
	return errors.Join(h.failure, err)
}

// HasSynced tells whether the handler has been told of every object there was at the start.
func (h *hook) HasSynced() bool { return cache.IsDone(h) }

// HasSyncedChecker returns the hook: it is its own.
func (h *hook) HasSyncedChecker() cache.DoneChecker { return h }

// Name names what is waited for.
func (h *hook) Name() string {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.attached == nil {
		return "event handler that is not attached yet"
	}
	return h.attached.HasSyncedChecker().Name()
}

// Done returns what is closed when the handler has synced.
func (h *hook) Done() <-chan struct{} { return h.synced }

// ShutdownChan returns what is closed when a removed handler has ended. client-go asks for it in
// ShutDownEventHandler.
func (h *hook) ShutdownChan() <-chan struct{} {
	h.mu.Lock()
	defer h.mu.Unlock()
	if ends, ok := h.attached.(interface{ ShutdownChan() <-chan struct{} }); ok {
		return ends.ShutdownChan()
	}
	ended := make(chan struct{})
	close(ended)
	return ended
}
