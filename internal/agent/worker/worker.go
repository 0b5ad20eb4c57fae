package worker

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/podman-swarm/podman-swarm/internal/agent/plan"
	"github.com/podman-swarm/podman-swarm/internal/netd"
)

// errHurry ends waits of a sync whose pod is to go, or must be looked at anew.
var errHurry = errors.New("the pod is being deleted")

// Delays between tries of something that failed for no reason of the pod's own.
const (
	retryFirst = time.Second
	retryMax   = 10 * time.Second
)

// Worker runs one pod. What its run goroutine alone touches is in the second half.
type Worker struct {
	host *Host
	uid  types.UID
	name types.NamespacedName // the pod's; empty for a leftover of which nothing tells
	log  *slog.Logger

	wake    chan struct{} // capacity 1
	waits   atomic.Bool   // see Waits
	vacated atomic.Bool   // nothing of the pod is left on this host but logs, or ever will be
	mu      sync.Mutex
	// pod is the newest version known; nil for leftovers of a pod the API never told us of.
	pod  *corev1.Pod
	gone bool // the API has it no more
	// hurry cancels the present sync's waits; changed is closed and renewed with every version.
	hurry   context.CancelCauseFunc
	changed chan struct{}
	// told is the last status the API took from us, revision its resourceVersion.
	told     *corev1.PodStatus
	revision uint64

	// single: the pod must not run twice; nil: not known yet.
	single atomic.Pointer[bool]

	// urgent is the present step's context: it also ends when the pod is to go, or to be stopped. Only what
	// may be left undone half way waits on it: slots, pulls, postStart hooks, the API, volumes.
	urgent   context.Context //nolint:containedctx // lives for one step
	adopted  bool
	sandbox  bool // network, files and volumes of the pod are there
	known    bool // something of it may be on this host
	paths    map[string]string
	at       netd.Attachment
	ports    []io.Closer
	waiting  map[string]plan.Waiting
	hold     map[string]time.Time
	backoffs map[string]plan.Backoff
	failures map[string]int // starts of a container that failed in a row
	failed   *plan.Failure
	noted    map[string]bool // remarks already made as events
	refresh  time.Time       // volumes are brought up to date then
	synced   string          // resourceVersion the volumes were last made from
	retries  int
	deleted  bool   // the API has been asked to forget the pod
	slot     bool   // holds one of the agent's slots
	hasty    bool   // what is being stopped must not take longer than the fence allows
	until    string // what it waits for before it may be started, for a user
}

// New returns a worker for a pod of the API.
func New(host *Host, uid types.UID, pod *corev1.Pod) *Worker {
	w := &Worker{
		host: host, uid: uid, pod: pod, wake: make(chan struct{}, 1), changed: make(chan struct{}),
		log:      host.Log.With("pod", string(uid)),
		waiting:  map[string]plan.Waiting{},
		hold:     map[string]time.Time{},
		backoffs: map[string]plan.Backoff{},
		failures: map[string]int{},
		noted:    map[string]bool{},
	}
	if pod != nil {
		w.name = types.NamespacedName{Namespace: pod.Namespace, Name: pod.Name}
		w.log = host.Log.With("pod", w.name.String())
	}
	return w
}

// Leftover returns a worker that removes what is left of a pod the API does not have, of that name as far as
// it is known.
func Leftover(host *Host, uid types.UID, name types.NamespacedName) *Worker {
	w := New(host, uid, nil)
	w.name = name
	w.gone, w.known = true, true
	return w
}

// UID is the pod's.
func (w *Worker) UID() types.UID { return w.uid }

// Pod returns the newest version known, nil for a leftover.
func (w *Worker) Pod() *corev1.Pod {
	pod, _, _ := w.current()
	return pod
}

// Expect says before Run that something of the pod may be on this host already.
func (w *Worker) Expect() { w.known = true }

// Poke has the worker look again soon.
func (w *Worker) Poke() {
	select {
	case w.wake <- struct{}{}:
	default:
	}
}

// Reconsider has the worker look again soon, and what is being stopped look whether it must hurry. Behind the
// fence a pod that must not run twice is stopped at once, not when a pull ends, or a write that no leader
// takes. Any other is spared: a hook that is cut short is not run again.
func (w *Worker) Reconsider() {
	w.mu.Lock()
	w.broadcast(w.host.Fence != nil && w.host.Fence.Cut() && w.maybeSingle())
	w.mu.Unlock()
	w.Poke()
}

// Update hands over a newer version of the pod.
func (w *Worker) Update(pod *corev1.Pod) {
	w.mu.Lock()
	ending := pod.DeletionTimestamp != nil &&
		(w.pod == nil || w.pod.DeletionTimestamp == nil || plan.Grace(pod) != plan.Grace(w.pod))
	w.pod = pod
	w.broadcast(ending)
	w.mu.Unlock()
	w.Poke()
}

// Vanish tells that the API has the pod no more. last is its last version: a forced deletion shows
// in its grace period only there.
func (w *Worker) Vanish(last *corev1.Pod) {
	w.mu.Lock()
	w.gone = true
	if last.DeletionGracePeriodSeconds != nil {
		w.pod = last
	}
	w.broadcast(true)
	w.mu.Unlock()
	w.Poke()
}

// broadcast wakes what waits inside a sync. The caller holds mu.
func (w *Worker) broadcast(hurry bool) {
	close(w.changed)
	w.changed = make(chan struct{})
	if hurry && w.hurry != nil {
		w.hurry(errHurry)
	}
}

// current returns the newest version of the pod, and a channel that is closed by the next one.
func (w *Worker) current() (pod *corev1.Pod, gone bool, changed <-chan struct{}) {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.pod, w.gone, w.changed
}

// Run works until the pod is gone and nothing of it is left, or ctx ends.
func (w *Worker) Run(ctx context.Context) {
	defer w.closePorts()
	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-w.wake:
		case <-timer.C:
		}
		at, done := w.step(ctx)
		if done || ctx.Err() != nil {
			return
		}
		timer.Stop()
		if !at.IsZero() {
			timer.Reset(max(at.Sub(w.host.Now()), 0))
		}
	}
}

// step does what can be done now, and says when to look again without being asked.
func (w *Worker) step(ctx context.Context) (at time.Time, done bool) {
	pod, gone, _ := w.current()
	sub, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	w.mu.Lock()
	w.hurry = cancel
	w.mu.Unlock()
	w.urgent = sub
	defer w.release()
	var err error
	switch {
	case gone:
		done, err = w.leave(ctx, pod)
	case pod.DeletionTimestamp != nil:
		err = w.terminate(ctx, pod)
	case plan.Terminal(w.Base(pod).Phase):
		err = w.finish(ctx, pod)
	case w.fenced(ctx, pod):
		err = w.suspend(ctx, pod)
	case w.succeeds(ctx, pod):
		err = w.await(ctx, pod)
	default:
		w.goOn()
		at, err = w.sync(ctx, pod)
	}
	if err == nil || ctx.Err() != nil {
		w.retries = 0
		return at, done
	}
	if errors.Is(err, errHeld) || errors.Is(err, errHurry) || errors.Is(context.Cause(sub), errHurry) {
		w.Poke()
		return time.Time{}, false
	}
	w.log.Debug("sync pod", "err", err, "retries", w.retries)
	w.host.Trouble(err)
	delay := min(retryFirst<<min(w.retries, 10), retryMax)
	w.retries++
	retry := w.host.Now().Add(delay)
	if at.IsZero() || retry.Before(at) {
		at = retry
	}
	return at, false
}

// acquire takes one of the slots that bound how many pods are being started at one time.
func (w *Worker) acquire() error {
	if w.slot {
		return nil
	}
	select {
	case w.host.Slots <- struct{}{}:
		w.slot = true
		return nil
	case <-w.urgent.Done():
		return context.Cause(w.urgent)
	}
}

// hurried tells why the present step must not wait any more; nil when it may.
func (w *Worker) hurried() error { return context.Cause(w.urgent) }

func (w *Worker) release() {
	if w.slot {
		w.slot = false
		<-w.host.Slots
	}
}

// event writes an event of the pod, or of one of its containers.
func (w *Worker) event(container, kind, reason, message string) {
	pod, _, _ := w.current()
	if pod == nil {
		return
	}
	ref := plan.PodRef(pod)
	if container != "" {
		ref = plan.ContainerRef(pod, container)
	}
	w.host.Events.Event(ref, kind, reason, message)
}

// note writes a warning once in the pod's life here.
func (w *Worker) note(reason, message string) {
	if !w.noted[reason+message] {
		w.noted[reason+message] = true
		w.event("", corev1.EventTypeWarning, reason, message)
	}
}
