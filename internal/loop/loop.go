package loop

import (
	"context"
	"log/slog"
	"sync"
	"time"

	utilruntime "k8s.io/apimachinery/pkg/util/runtime"
	"k8s.io/client-go/util/workqueue"
)

// Reconcile brings one key's facts in line with what is wanted. An error makes the loop call it
// again, later each time. It must return soon after ctx ends.
type Reconcile func(ctx context.Context, key string) error

// Options tune a loop. The zero value is usable.
type Options struct {
	// Workers is how many keys are reconciled at once; 1 when zero.
	Workers int
	// BaseDelay is the wait after a key's first error; it doubles with each further one. 50 ms when
	// zero.
	BaseDelay time.Duration
	// MaxDelay bounds that wait; one minute when zero.
	MaxDelay time.Duration
	// Log receives each error once, with the key. Nothing is logged when nil.
	Log *slog.Logger
}

func (o Options) withDefaults() Options {
	if o.Workers == 0 {
		o.Workers = 1
	}
	if o.BaseDelay == 0 {
		o.BaseDelay = 50 * time.Millisecond
	}
	if o.MaxDelay == 0 {
		o.MaxDelay = time.Minute
	}
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	return o
}

type queue = workqueue.TypedRateLimitingInterface[string]

// Loop calls a Reconcile for the keys added to it. Its methods may be called from any goroutine,
// also from within Reconcile.
type Loop struct {
	name      string
	reconcile Reconcile
	options   Options

	mu sync.Mutex
	// Invariant: queue is nil unless Run is running.
	queue queue
	// waiting holds the keys added while Run is not running, with the earliest time asked for.
	waiting map[string]time.Time
}

// New returns a loop that does nothing until Run. The name labels its log lines and metrics.
func New(name string, reconcile Reconcile, options Options) *Loop {
	return &Loop{
		name:      name,
		reconcile: reconcile,
		options:   options.withDefaults(),
		waiting:   make(map[string]time.Time),
	}
}

// Add asks for the key to be reconciled now. A key added while Run is not running is remembered.
func (l *Loop) Add(key string) { l.AddAfter(key, 0) }

// AddAfter asks for the key to be reconciled once the delay has passed. It does not replace an
// earlier request: the key may be reconciled before.
func (l *Loop) AddAfter(key string, delay time.Duration) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.queue != nil {
		l.queue.AddAfter(key, delay)
		return
	}
	at := time.Now().Add(delay)
	if before, ok := l.waiting[key]; !ok || at.Before(before) {
		l.waiting[key] = at
	}
}

// Run reconciles keys until ctx ends and the calls under way have returned. Keys not reached by
// then are forgotten. Run may be called again afterwards, but not while it is running.
func (l *Loop) Run(ctx context.Context) {
	q := l.open()
	var workers sync.WaitGroup
	for range l.options.Workers {
		workers.Go(func() {
			defer utilruntime.HandleCrashWithContext(ctx)
			for l.next(ctx, q) {
			}
		})
	}
	<-ctx.Done()
	l.mu.Lock()
	l.queue = nil
	l.mu.Unlock()
	q.ShutDown()
	workers.Wait()
}

// open makes the queue and moves the waiting keys into it.
func (l *Loop) open() queue {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.queue != nil {
		panic("loop " + l.name + ": Run is already running")
	}
	l.queue = workqueue.NewTypedRateLimitingQueueWithConfig(
		workqueue.NewTypedItemExponentialFailureRateLimiter[string](l.options.BaseDelay, l.options.MaxDelay),
		workqueue.TypedRateLimitingQueueConfig[string]{Name: l.name})
	for key, at := range l.waiting {
		l.queue.AddAfter(key, time.Until(at))
	}
	clear(l.waiting)
	return l.queue
}

// next reconciles one key. It returns false when the queue has ended.
func (l *Loop) next(ctx context.Context, q queue) bool {
	key, ended := q.Get()
	if ended {
		return false
	}
	defer q.Done(key)
	// A queue that was shut down still hands out what is left in it.
	if ctx.Err() != nil {
		return true
	}
	if err := l.reconcile(ctx, key); err != nil {
		if ctx.Err() == nil {
			l.options.Log.WarnContext(ctx, "reconcile", "part", l.name, "key", key, "err", err,
				"retries", q.NumRequeues(key))
		}
		q.AddRateLimited(key)
		return true
	}
	q.Forget(key)
	return true
}
