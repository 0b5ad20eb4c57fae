package tap

import (
	"context"
	"errors"
	"fmt"
	"sync"

	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/client-go/informers"
	"k8s.io/client-go/informers/internalinterfaces"
	"k8s.io/client-go/tools/cache"
)

// ErrClosed is what adding an event handler through a closed tap returns.
var ErrClosed = errors.New("tap is closed")

// Source is the one factory of the process that taps are opened on.
type Source struct {
	base     informers.SharedInformerFactory
	lifetime <-chan struct{}

	// indexes guards the sets of index functions of all informers. An informer hands out its set
	// unguarded, which was meant for one part starting at a time.
	indexes sync.Mutex
}

// NewSource returns a source over the base factory. Informers started through its taps run until
// lifetime is closed, which must be as long as anyone uses the base.
func NewSource(base informers.SharedInformerFactory, lifetime <-chan struct{}) *Source {
	return &Source{base: base, lifetime: lifetime}
}

// Open returns a new tap. It must be closed.
func (s *Source) Open() *Tap {
	return &Tap{SharedInformerFactory: s.base, source: s, closed: make(chan struct{})}
}

// Tap is a shared informer factory on top of the source's. Every informer it hands out is the
// source's, with its cache; only event handlers belong to the tap.
type Tap struct {
	informers.SharedInformerFactory
	source *Source
	// closed is closed by Close.
	closed chan struct{}
	// waiting counts the goroutines that wait for a hook to be synced.
	waiting sync.WaitGroup

	mu      sync.Mutex
	started bool
	hooks   []*hook
}

// Start attaches the event handlers added so far, each of which then hears of every object there
// is, and starts the informers asked for. Those outlive the channel given, which is the
// borrower's: they run until the source's lifetime is over.
func (t *Tap) Start(<-chan struct{}) {
	t.mu.Lock()
	hooks := t.hooks
	if t.started {
		hooks = nil
	}
	t.started = true
	t.waiting.Add(len(hooks))
	t.mu.Unlock()
	for _, h := range hooks {
		_ = t.attach(h) // Close returns it: upstream has no place for it here.
	}
	t.SharedInformerFactory.Start(t.source.lifetime)
}

// StartWithContext is Start.
func (t *Tap) StartWithContext(context.Context) { t.Start(nil) }

// Shutdown does nothing: the informers belong to the base's owner.
func (t *Tap) Shutdown() {}

// Close removes every event handler added through the tap and returns when none of them is running
// any more. No handler can be added afterwards. Informers and indexes stay. It returns why handlers
// could not be attached, if any.
func (t *Tap) Close() error {
	t.mu.Lock()
	hooks := t.hooks
	t.hooks = nil
	if !t.isClosed() {
		close(t.closed)
	}
	t.mu.Unlock()
	var errs []error
	for _, h := range hooks {
		errs = append(errs, h.remove())
	}
	t.waiting.Wait()
	return errors.Join(errs...)
}

func (t *Tap) isClosed() bool {
	select {
	case <-t.closed:
		return true
	default:
		return false
	}
}

// hook remembers an event handler, and attaches it at once if the tap has been started.
func (t *Tap) hook(to cache.SharedIndexInformer, add addFunc) (cache.ResourceEventHandlerRegistration, error) {
	h := &hook{informer: to, add: add, synced: make(chan struct{})}
	t.mu.Lock()
	if t.isClosed() {
		t.mu.Unlock()
		return nil, ErrClosed
	}
	t.hooks = append(t.hooks, h)
	started := t.started
	if started {
		t.waiting.Add(1)
	}
	t.mu.Unlock()
	if started {
		if err := t.attach(h); err != nil {
			return nil, err
		}
	}
	return h, nil
}

// attach attaches a hook, and has it wait for its sync. It takes over one count of waiting.
func (t *Tap) attach(h *hook) error {
	if err := h.attach(); err != nil {
		t.waiting.Done()
		return err
	}
	go func() {
		defer t.waiting.Done()
		h.waitForSync(t.closed)
	}()
	return nil
}

// InformerFor returns the base's informer for the object's type.
func (t *Tap) InformerFor(obj runtime.Object, create internalinterfaces.NewInformerFunc) cache.SharedIndexInformer {
	return &informer{SharedIndexInformer: t.SharedInformerFactory.InformerFor(obj, create), tap: t}
}

// ForResource returns the base's informer for the resource, or an error if it is not a built-in one.
func (t *Tap) ForResource(resource schema.GroupVersionResource) (informers.GenericInformer, error) {
	g, err := t.SharedInformerFactory.ForResource(resource)
	if err != nil {
		return nil, fmt.Errorf("informer for %s: %w", resource, err)
	}
	return generic{GenericInformer: g, tap: t}, nil
}

type generic struct {
	informers.GenericInformer
	tap *Tap
}

func (g generic) Informer() cache.SharedIndexInformer {
	return &informer{SharedIndexInformer: g.GenericInformer.Informer(), tap: g.tap}
}
