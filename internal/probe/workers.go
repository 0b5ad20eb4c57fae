package probe

import (
	"container/heap"
	"context"
	"fmt"
	"hash/fnv"
	"sync"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"
)

const (
	defaultParallel = 128
	// adoptedBefore: a container older than this when Workers were made was running before this agent was.
	adoptedBefore = 10 * time.Second
)

// Workers run the probes of all containers of a node by their timing fields. Safe for concurrent use.
type Workers struct {
	cfg   WorkersConfig
	began time.Time
	wake  chan struct{}   // something was added or became due earlier
	done  chan completion // room for all probes under way: senders never wait

	mu    sync.Mutex
	items map[key]*worker
	queue queue // of workers that wait for their time
}

type key struct {
	uid       types.UID
	container string
	kind      Kind
}

// worker is one probe of one container.
type worker struct {
	key    key
	target Target
	spec   *corev1.Probe
	cancel context.CancelFunc // of the probe under way; nil: none is

	due   time.Time
	index int    // in the queue; -1: not there
	state Result // what is believed
	last  Result // what the last probe found
	run   int    // how often in a row
	gated bool   // waits for the startup probe
	over  bool   // no more probes until a new ContainerID; Invariant: not queued
	gone  bool   // removed: results are dropped
}

type completion struct {
	w        *worker
	launched time.Time
	result   Result
	output   string
	err      error
}

// NewWorkers returns Workers; nothing is probed until Run.
func NewWorkers(cfg WorkersConfig) *Workers {
	if cfg.Parallel == 0 {
		cfg.Parallel = defaultParallel
	}
	return &Workers{
		cfg:   cfg,
		began: time.Now(),
		wake:  make(chan struct{}, 1),
		done:  make(chan completion, cfg.Parallel),
		items: map[key]*worker{},
	}
}

// Run probes until ctx ends and waits for probes under way.
func (w *Workers) Run(ctx context.Context) error {
	var flight sync.WaitGroup
	defer flight.Wait()
	inFlight := 0
	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		for inFlight < w.cfg.Parallel && w.launch(ctx, &flight) {
			inFlight++
		}
		if wait, ok := w.nextDue(); ok && inFlight < w.cfg.Parallel {
			timer.Reset(wait)
		} else {
			timer.Stop()
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-timer.C:
		case <-w.wake:
		case c := <-w.done:
			inFlight--
			w.finish(c)
		}
	}
}

// launch starts the probe that is due first, if one is.
func (w *Workers) launch(ctx context.Context, flight *sync.WaitGroup) bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	now := time.Now()
	if len(w.queue) == 0 || w.queue[0].due.After(now) {
		return false
	}
	it := heap.Pop(&w.queue).(*worker)
	ctx, cancel := context.WithCancel(ctx)
	it.cancel = cancel
	target := it.target
	flight.Go(func() {
		defer cancel()
		c := completion{w: it, launched: now}
		c.result, c.output, c.err = w.cfg.Prober.Probe(ctx, target, it.spec)
		w.done <- c
	})
	return true
}

func (w *Workers) nextDue() (time.Duration, bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if len(w.queue) == 0 {
		return 0, false
	}
	return max(0, time.Until(w.queue[0].due)), true
}

// finish takes in what a probe found, tells the callbacks and plans the next one.
func (w *Workers) finish(c completion) {
	event, transition := w.record(c)
	if event != nil {
		w.cfg.Log.Debug("probe", "kind", c.w.key.kind.String(), "pod", podText(event.Target.Pod),
			"container", event.Target.Container.Name, "result", string(c.result), "err", c.err)
		if w.cfg.OnEvent != nil {
			w.cfg.OnEvent(*event)
		}
	}
	if transition != nil && w.cfg.OnTransition != nil {
		w.cfg.OnTransition(*transition)
	}
}

func (w *Workers) record(c completion) (event *Event, transition *Transition) {
	w.mu.Lock()
	defer w.mu.Unlock()
	it := c.w
	it.cancel = nil
	if it.gone || it.over {
		return nil, nil
	}
	defer func() {
		if !it.over {
			w.schedule(it, c.launched.Add(period(it.spec)))
		}
	}()
	kind := it.key.kind
	if c.err != nil {
		msg := fmt.Sprintf("%s probe errored and resulted in %s state: %s", kind, c.result, c.err)
		return &Event{it.target, "Unhealthy", msg}, nil
	}
	result := c.result
	switch c.result {
	case Warning:
		result = Success
		event = &Event{it.target, "ProbeWarning", fmt.Sprintf("%s probe warning: %s", kind, c.output)}
	case Failure:
		event = &Event{it.target, "Unhealthy", fmt.Sprintf("%s probe failed: %s", kind, c.output)}
	}
	if result != it.last {
		it.last, it.run = result, 0
	}
	it.run++
	if it.run < threshold(it.spec, result) {
		return event, nil
	}
	if it.state != result {
		it.state = result
		transition = &Transition{
			Target: it.target, Kind: kind, Result: result,
			Grace: it.spec.TerminationGracePeriodSeconds,
		}
	}
	// The container will be stopped, or has started: asking again can only disturb.
	if kind == Startup || (kind == Liveness && result == Failure) {
		it.over = true
		if kind == Startup && result == Success {
			w.openGate(it.key)
		}
	}
	return event, transition
}

// openGate lets the other probes of a container begin.
func (w *Workers) openGate(k key) {
	for _, kind := range []Kind{Liveness, Readiness} {
		k.kind = kind
		if it := w.items[k]; it != nil && it.gated {
			it.gated = false
			w.schedule(it, it.firstDue())
		}
	}
}

// Add starts probing a container that runs. The same ContainerID again only updates the target; a new one
// replaces the container's older attempt. Containers without probes need not be added, but may be.
func (w *Workers) Add(t Target) {
	w.mu.Lock()
	defer w.mu.Unlock()
	c := t.Container
	startupPending := c.StartupProbe != nil && !t.Started
	for kind, spec := range map[Kind]*corev1.Probe{
		Liveness: c.LivenessProbe, Readiness: c.ReadinessProbe, Startup: c.StartupProbe,
	} {
		k := key{t.Pod.UID, c.Name, kind}
		if old := w.items[k]; old != nil {
			if old.target.ContainerID == t.ContainerID {
				old.target = t
				continue
			}
			w.drop(old)
		}
		if spec == nil {
			continue
		}
		it := &worker{key: k, target: t, spec: spec, index: -1}
		w.items[k] = it
		switch kind {
		case Liveness:
			it.state, it.gated = Success, startupPending
		case Readiness:
			it.state, it.gated = Failure, startupPending
			if t.Ready && !startupPending {
				it.state = Success
			}
		case Startup:
			it.state = Unknown
			if t.Started {
				it.state, it.over = Success, true
			}
		}
		if !it.gated && !it.over {
			w.begin(it)
		}
	}
}

// firstDue is when the first probe may be made.
func (it *worker) firstDue() time.Time {
	return it.target.StartedAt.Add(time.Duration(it.spec.InitialDelaySeconds) * time.Second)
}

// begin queues the first probe. That of a container that was there before the agent was is delayed by a part of
// its period, always the same one for a container, so that a restart of the agent does not probe all at once.
func (w *Workers) begin(it *worker) {
	due := it.firstDue()
	if it.target.StartedAt.Before(w.began.Add(-adoptedBefore)) {
		h := fnv.New32a()
		_, _ = h.Write([]byte(it.target.ContainerID + it.key.kind.String()))
		if now := time.Now(); due.Before(now) {
			due = now
		}
		due = due.Add(time.Duration(float64(period(it.spec)) * float64(h.Sum32()) / (1 << 32)))
	}
	w.schedule(it, due)
}

// schedule queues a worker; the caller holds the lock.
func (w *Workers) schedule(it *worker, due time.Time) {
	it.due = due
	if it.index >= 0 {
		heap.Fix(&w.queue, it.index)
	} else {
		heap.Push(&w.queue, it)
	}
	select {
	case w.wake <- struct{}{}:
	default: // Run will look anyway
	}
}

// drop removes a worker; the caller holds the lock.
func (w *Workers) drop(it *worker) {
	it.gone = true
	w.stop(it)
	delete(w.items, it.key)
}

// stop ends a worker's probes; the caller holds the lock.
func (w *Workers) stop(it *worker) {
	it.over = true
	if it.index >= 0 {
		heap.Remove(&w.queue, it.index)
	}
	if it.cancel != nil {
		it.cancel()
	}
}

// Remove stops probing a container and forgets its results.
func (w *Workers) Remove(uid types.UID, container string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, kind := range []Kind{Liveness, Readiness, Startup} {
		if it := w.items[key{uid, container, kind}]; it != nil {
			w.drop(it)
		}
	}
}

// RemovePod stops probing all containers of a pod.
func (w *Workers) RemovePod(uid types.UID) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for k, it := range w.items {
		if k.uid == uid {
			w.drop(it)
		}
	}
}

// Terminating stops liveness and startup probes of a pod that is being deleted; readiness goes on, so that
// a pod that drains is seen as not ready. A container whose startup probe was still running counts as started.
func (w *Workers) Terminating(uid types.UID) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for k, it := range w.items {
		if k.uid != uid || k.kind == Readiness || !isMain(it.target) {
			continue
		}
		w.stop(it)
		if k.kind == Startup && it.state == Unknown {
			it.state = Success
			w.openGate(k)
		}
	}
}

func isMain(t Target) bool {
	for i := range t.Pod.Spec.Containers {
		if t.Pod.Spec.Containers[i].Name == t.Container.Name {
			return true
		}
	}
	return false
}

// Started says whether a container has passed its startup probe (or has none).
func (w *Workers) Started(uid types.UID, c *corev1.Container, containerID string) bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	return c.StartupProbe == nil || w.isState(key{uid, c.Name, Startup}, containerID)
}

// Ready says whether a running container is ready: started, and its readiness probe, if any, last succeeded.
func (w *Workers) Ready(uid types.UID, c *corev1.Container, containerID string) bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	return (c.StartupProbe == nil || w.isState(key{uid, c.Name, Startup}, containerID)) &&
		(c.ReadinessProbe == nil || w.isState(key{uid, c.Name, Readiness}, containerID))
}

func (w *Workers) isState(k key, containerID string) bool {
	it := w.items[k]
	return it != nil && it.target.ContainerID == containerID && it.state == Success
}

func period(p *corev1.Probe) time.Duration {
	return max(time.Duration(p.PeriodSeconds)*time.Second, time.Second)
}

func threshold(p *corev1.Probe, r Result) int {
	if r == Success {
		return int(p.SuccessThreshold)
	}
	return int(p.FailureThreshold)
}
