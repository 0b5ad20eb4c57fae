package worker

import (
	"context"
	"errors"
	"fmt"
	"time"

	corev1 "k8s.io/api/core/v1"

	"github.com/podman-swarm/podman-swarm/internal/agent/image"
	"github.com/podman-swarm/podman-swarm/internal/agent/plan"
	"github.com/podman-swarm/podman-swarm/internal/podman"
	"github.com/podman-swarm/podman-swarm/internal/volume"
)

// refreshEvery is how often the volumes of a running pod are brought up to date.
const refreshEvery = time.Minute

// sync brings a pod that is to run closer to what its specification says, and tells the API what it
// came to.
func (w *Worker) sync(ctx context.Context, pod *corev1.Pod) (time.Time, error) {
	if why := plan.Unsupported(pod); why != "" {
		w.note("NotSupported", "Not started: "+why)
		for i := range pod.Spec.Containers {
			w.waiting[pod.Spec.Containers[i].Name] = plan.Waiting{Reason: "NotSupported", Message: why}
		}
		return time.Time{}, w.tell(pod, false)
	}
	if len(pod.Spec.EphemeralContainers) > 0 {
		w.note("NotSupported", "Not started: ephemeral containers are not supported yet")
	}
	deadline, over := w.overdue(pod)
	if over {
		w.failed = &plan.Failure{
			Reason:  "DeadlineExceeded",
			Message: "Pod was active on the node longer than the specified deadline",
		}
		w.event("", corev1.EventTypeNormal, w.failed.Reason, w.failed.Message)
		return time.Time{}, w.finish(ctx, pod)
	}
	at, err := w.act(ctx, pod)
	if err == nil && plan.Terminal(w.status(pod, false).Phase) {
		return time.Time{}, w.finish(ctx, pod)
	}
	if w.urgent.Err() == nil {
		err = errors.Join(err, w.tell(pod, false))
	}
	if w.sandbox {
		at = earliest(at, w.refresh)
	}
	return earliest(at, deadline), err
}

// overdue tells whether the pod's activeDeadlineSeconds are over, or else when they will be.
func (w *Worker) overdue(pod *corev1.Pod) (time.Time, bool) {
	start := w.Base(pod).StartTime
	if pod.Spec.ActiveDeadlineSeconds == nil || start == nil {
		return time.Time{}, false
	}
	at := start.Add(time.Duration(*pod.Spec.ActiveDeadlineSeconds) * time.Second)
	return at, !at.After(w.host.Now())
}

// act plans and acts until there is nothing to do at present.
func (w *Worker) act(ctx context.Context, pod *corev1.Pod) (time.Time, error) {
	if err := w.adopt(ctx, pod); err != nil {
		return time.Time{}, err
	}
	for {
		w.settle(ctx, pod)
		if plan.Terminal(w.status(pod, false).Phase) {
			return time.Time{}, nil
		}
		p := w.plan(pod)
		for name, why := range p.Waiting {
			if w.waiting[name].Reason != why.Reason {
				w.event(name, corev1.EventTypeWarning, "BackOff", fmt.Sprintf(
					"Back-off restarting failed container %s in pod %s", name, plan.PodLabel(pod)))
			}
			w.waiting[name] = why
		}
		if p.Idle() {
			return p.Wake, w.keepUp(pod)
		}
		if err := w.carryOut(ctx, pod, p); err != nil { // see urgent
			return p.Wake, err
		}
		if err := w.hurried(); err != nil {
			return p.Wake, err
		}
	}
}

func (w *Worker) plan(pod *corev1.Pod) plan.Plan {
	containers := w.host.Ledger.Of(w.uid)
	return plan.Compute(plan.Input{
		Pod: pod, Containers: containers, Boot: w.host.Boot, Health: w.health(pod, containers),
		Backoffs: w.backoffs, Hold: w.hold, Now: w.host.Now(),
	})
}

// carryOut carries out one plan.
func (w *Worker) carryOut(ctx context.Context, pod *corev1.Pod, p plan.Plan) error {
	if len(p.Kill) > 0 {
		return w.killAll(ctx, pod, p.Kill)
	}
	for _, id := range p.Remove {
		if err := w.remove(ctx, pod, id); err != nil {
			return err
		}
	}
	if len(p.Start) == 0 {
		return nil
	}
	if err := w.acquire(); err != nil {
		return err
	}
	defer w.release()
	if err := w.ensureSandbox(ctx, pod, false); err != nil {
		w.tellSandbox(err)
		return err
	}
	for _, s := range p.Start {
		if err := w.startOne(ctx, pod, s); err != nil {
			return err
		}
	}
	return nil
}

// startOne starts one container. Failures of the container's own are remembered as why it waits;
// the error returned is for what is none of its fault.
func (w *Worker) startOne(ctx context.Context, pod *corev1.Pod, s plan.Start) error {
	name := s.Spec.Name
	if err := w.acquire(); err != nil {
		return err
	}
	err := w.start(ctx, pod, s)
	var bad *startError
	var noImage *image.NoImageError
	switch {
	case err == nil:
		delete(w.waiting, name)
		delete(w.hold, name)
		delete(w.failures, name)
		return nil
	case errors.As(err, &noImage):
		w.waiting[name] = plan.Waiting{Reason: noImage.Reason, Message: noImage.Message}
		w.hold[name] = noImage.Retry
		return nil
	case w.urgent.Err() != nil:
		return w.hurried()
	case errors.Is(err, podman.ErrUnavailable):
		return err
	case errors.As(err, &bad):
		w.waiting[name] = plan.Waiting{Reason: bad.reason, Message: bad.err.Error()}
		n := w.failures[name]
		w.failures[name] = n + 1
		if bad.reason == reasonRunError || bad.reason == reasonPostStart {
			n = 0 // shown for a moment; then it is a crash loop like any other
		}
		w.hold[name] = w.host.Now().Add(min(retryFirst<<min(n, 10), retryMax))
		return nil
	default:
		return err
	}
}

// keepUp brings the volumes of a running pod up to date when it is time, or the pod changed.
func (w *Worker) keepUp(pod *corev1.Pod) error {
	now := w.host.Now()
	changed := w.synced != "" && w.synced != volumeKey(pod)
	if !w.sandbox || (!changed && (w.refresh.IsZero() || w.refresh.After(now))) {
		return nil
	}
	return w.setupVolumes(pod)
}

// setupVolumes makes the volumes, or refreshes them.
func (w *Worker) setupVolumes(pod *corev1.Pod) error {
	paths, err := w.host.Volumes.Setup(w.urgent, pod) // see urgent
	if why := w.hurried(); why != nil {
		return why
	}
	w.schedule(pod)
	if err != nil {
		for _, e := range volume.Errors(err) {
			w.event("", corev1.EventTypeWarning, "FailedMount", e.Error())
		}
		if len(volume.Errors(err)) == 0 {
			w.event("", corev1.EventTypeWarning, "FailedMount", err.Error())
		}
		return fmt.Errorf("set up volumes: %w", err)
	}
	w.paths, w.synced = paths, volumeKey(pod)
	return nil
}

// schedule sets the time of the next refresh: a minute for what others may change, sooner for a
// token that runs out, never for a pod without such volumes.
func (w *Worker) schedule(pod *corev1.Pod) {
	w.refresh = time.Time{}
	now := w.host.Now()
	for i := range pod.Spec.Volumes {
		v := &pod.Spec.Volumes[i]
		if v.ConfigMap != nil || v.Secret != nil || v.Projected != nil {
			w.refresh = now.Add(refreshEvery)
		}
	}
	if at := w.host.Volumes.NextRefresh(pod); !at.IsZero() {
		w.refresh = earliest(w.refresh, at)
	}
}

// volumeKey changes with what downward API volumes may show.
func volumeKey(pod *corev1.Pod) string {
	return fmt.Sprint("v", pod.Labels, pod.Annotations)
}

func earliest(times ...time.Time) time.Time {
	var first time.Time
	for _, t := range times {
		if !t.IsZero() && (first.IsZero() || t.Before(first)) {
			first = t
		}
	}
	return first
}
