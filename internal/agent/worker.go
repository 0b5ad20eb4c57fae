package agent

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"sync"
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

// worker runs one pod. What its run goroutine alone touches is in the second half.
type worker struct {
	a   *Agent
	uid types.UID
	log *slog.Logger

	wake chan struct{} // capacity 1
	mu   sync.Mutex
	// pod is the newest version known; nil for leftovers of a pod the API never told us of.
	pod  *corev1.Pod
	gone bool // the API has it no more
	// hurry cancels the present sync's waits; changed is closed and renewed with every version.
	hurry   context.CancelCauseFunc
	changed chan struct{}
	// told is the last status the API took from us, revision its resourceVersion.
	told     *corev1.PodStatus
	revision uint64

	// urgent is the present step's context: it also ends when the pod is to go. Only what may be
	// left undone half way waits on it: slots, pulls, postStart hooks.
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
	deleted  bool // the API has been asked to forget the pod
	cleaned  bool // nothing of it is left on this host but logs
	slot     bool // holds one of the agent's slots
}

func newWorker(a *Agent, uid types.UID, pod *corev1.Pod) *worker {
	w := &worker{
		a: a, uid: uid, pod: pod, wake: make(chan struct{}, 1), changed: make(chan struct{}),
		log:      a.cfg.Log.With("pod", string(uid)),
		waiting:  map[string]plan.Waiting{},
		hold:     map[string]time.Time{},
		backoffs: map[string]plan.Backoff{},
		failures: map[string]int{},
		noted:    map[string]bool{},
	}
	if pod != nil {
		w.log = a.cfg.Log.With("pod", pod.Namespace+"/"+pod.Name)
	}
	return w
}

// poke has the worker look again soon.
func (w *worker) poke() {
	select {
	case w.wake <- struct{}{}:
	default:
	}
}

// update hands over a newer version of the pod.
func (w *worker) update(pod *corev1.Pod) {
	w.mu.Lock()
	ending := pod.DeletionTimestamp != nil &&
		(w.pod == nil || w.pod.DeletionTimestamp == nil || grace(pod) != grace(w.pod))
	w.pod = pod
	w.broadcast(ending)
	w.mu.Unlock()
	w.poke()
}

// vanish tells that the API has the pod no more.
func (w *worker) vanish() {
	w.mu.Lock()
	w.gone = true
	w.broadcast(true)
	w.mu.Unlock()
	w.poke()
}

// broadcast wakes what waits inside a sync. The caller holds mu.
func (w *worker) broadcast(hurry bool) {
	close(w.changed)
	w.changed = make(chan struct{})
	if hurry && w.hurry != nil {
		w.hurry(errHurry)
	}
}

// current returns the newest version of the pod, and a channel that is closed by the next one.
func (w *worker) current() (pod *corev1.Pod, gone bool, changed <-chan struct{}) {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.pod, w.gone, w.changed
}

// run works until the pod is gone and nothing of it is left, or ctx ends.
func (w *worker) run(ctx context.Context) {
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
			timer.Reset(max(at.Sub(w.a.cfg.Now()), 0))
		}
	}
}

// step does what can be done now, and says when to look again without being asked.
func (w *worker) step(ctx context.Context) (at time.Time, done bool) {
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
		at, err = w.terminate(ctx, pod)
	case plan.Terminal(w.base(pod).Phase):
		err = w.finish(ctx, pod)
	default:
		at, err = w.sync(ctx, pod)
	}
	if err == nil || ctx.Err() != nil {
		w.retries = 0
		return at, done
	}
	if errors.Is(err, errHurry) || errors.Is(context.Cause(sub), errHurry) {
		w.poke()
		return time.Time{}, false
	}
	w.log.Debug("sync pod", "err", err, "retries", w.retries)
	w.a.trouble(ctx, err)
	delay := min(retryFirst<<min(w.retries, 10), retryMax)
	w.retries++
	retry := w.a.cfg.Now().Add(delay)
	if at.IsZero() || retry.Before(at) {
		at = retry
	}
	return at, false
}

// acquire takes one of the slots that bound how many pods are being started at one time.
func (w *worker) acquire() error {
	if w.slot {
		return nil
	}
	select {
	case w.a.slots <- struct{}{}:
		w.slot = true
		return nil
	case <-w.urgent.Done():
		return context.Cause(w.urgent)
	}
}

func (w *worker) release() {
	if w.slot {
		w.slot = false
		<-w.a.slots
	}
}

// event writes an event of the pod, or of one of its containers.
func (w *worker) event(container, kind, reason, message string) {
	pod, _, _ := w.current()
	if pod == nil {
		return
	}
	ref := podRef(pod)
	if container != "" {
		ref = containerRef(pod, container)
	}
	w.a.events.Event(ref, kind, reason, message)
}

// note writes a warning once in the pod's life here.
func (w *worker) note(reason, message string) {
	if !w.noted[reason+message] {
		w.noted[reason+message] = true
		w.event("", corev1.EventTypeWarning, reason, message)
	}
}

func grace(pod *corev1.Pod) int64 {
	switch {
	case pod.DeletionGracePeriodSeconds != nil:
		return *pod.DeletionGracePeriodSeconds
	case pod.Spec.TerminationGracePeriodSeconds != nil:
		return *pod.Spec.TerminationGracePeriodSeconds
	}
	return corev1.DefaultTerminationGracePeriodSeconds
}

func specOf(pod *corev1.Pod, name string) *corev1.Container {
	for i := range pod.Spec.InitContainers {
		if pod.Spec.InitContainers[i].Name == name {
			return &pod.Spec.InitContainers[i]
		}
	}
	for i := range pod.Spec.Containers {
		if pod.Spec.Containers[i].Name == name {
			return &pod.Spec.Containers[i]
		}
	}
	return nil
}
