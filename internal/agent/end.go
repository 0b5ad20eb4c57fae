package agent

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"golang.org/x/sync/errgroup"
	corev1 "k8s.io/api/core/v1"

	"github.com/podman-swarm/podman-swarm/internal/agent/plan"
	"github.com/podman-swarm/podman-swarm/internal/agent/podfile"
	"github.com/podman-swarm/podman-swarm/internal/podman"
)

const (
	// minGrace is the least time between SIGTERM and SIGKILL, upstream's.
	minGrace = 2 * time.Second
	// orphanGrace is for containers whose pod nobody remembers.
	orphanGrace = 10 * time.Second
	// killed is how long a container may take to end after SIGKILL before we ask again.
	killed = 5 * time.Second
)

// terminate ends a pod that is being deleted and then has the API forget it.
func (w *worker) terminate(ctx context.Context, pod *corev1.Pod) (time.Time, error) {
	if w.deleted {
		return time.Time{}, nil
	}
	w.a.probes.Terminating(w.uid)
	if err := w.stop(ctx, pod); err != nil {
		return time.Time{}, err
	}
	if err := w.tell(ctx, pod, true); err != nil {
		return time.Time{}, err
	}
	if err := w.clean(ctx); err != nil {
		return time.Time{}, err
	}
	if err := w.removeLogs(pod); err != nil {
		return time.Time{}, err
	}
	if err := w.forget(ctx, pod); err != nil {
		return time.Time{}, err
	}
	w.deleted = true
	return time.Time{}, nil
}

// finish ends a pod that is over but stays in the API: its logs stay too.
func (w *worker) finish(ctx context.Context, pod *corev1.Pod) error {
	if w.cleaned {
		return nil
	}
	if err := w.stop(ctx, pod); err != nil {
		return err
	}
	if err := w.tell(ctx, pod, true); err != nil {
		return err
	}
	if err := w.clean(ctx); err != nil {
		return err
	}
	w.cleaned = true
	return nil
}

// leave removes what is left of a pod that the API has no more.
func (w *worker) leave(ctx context.Context, pod *corev1.Pod) (bool, error) {
	if err := w.stop(ctx, pod); err != nil {
		return false, err
	}
	if err := w.clean(ctx); err != nil {
		return false, err
	}
	return true, w.removeLogs(pod)
}

// stop ends all containers that run, each with its preStop hook and grace.
func (w *worker) stop(ctx context.Context, pod *corev1.Pod) error {
	var kills []plan.Kill
	for _, c := range w.a.store.of(w.uid) {
		if c.State == plan.Exited || c.State == plan.Created {
			continue
		}
		k := plan.Kill{Container: c, Message: "Stopping container " + c.Name}
		if pod != nil {
			k.Spec = specOf(pod, c.Name)
		}
		kills = append(kills, k)
	}
	if len(kills) == 0 {
		w.settle(ctx, pod)
		return nil
	}
	return w.killAll(ctx, pod, kills)
}

// killAll ends containers, all at the same time.
func (w *worker) killAll(ctx context.Context, pod *corev1.Pod, kills []plan.Kill) error {
	var g errgroup.Group
	for _, k := range kills {
		g.Go(func() error { return w.kill(ctx, pod, k) })
	}
	err := g.Wait()
	w.settle(ctx, pod)
	return err
}

// kill ends one container: preStop hook, stop signal, grace, SIGKILL. It returns when it has ended.
func (w *worker) kill(ctx context.Context, pod *corev1.Pod, k plan.Kill) error {
	c := k.Container
	e, ok := w.a.store.get(c.ID)
	if !ok || e.State == plan.Exited {
		return nil
	}
	w.event(c.Name, corev1.EventTypeNormal, "Killing", k.Message)
	w.a.store.update(c.ID, func(e *entry) { e.Restart = e.Restart || k.Restart })
	d := newDeadline(w, k)
	if k.Spec != nil && k.Spec.Lifecycle != nil && k.Spec.Lifecycle.PreStop != nil && d.left() > 0 {
		w.preStop(ctx, pod, k, d)
	}
	d.atLeast(minGrace)
	if err := w.signal(ctx, c.ID, w.stopSignal(ctx, k)); err != nil {
		return err
	}
	for !d.wait(ctx, e.ended) {
		if err := context.Cause(ctx); err != nil {
			return err
		}
		// Both a no-op when it has ended meanwhile and we have not heard.
		if err := w.signal(ctx, c.ID, "SIGKILL"); err != nil {
			return err
		}
		if err := w.reinspect(ctx, c.ID); err != nil {
			return err
		}
		d.atLeast(killed)
	}
	return nil
}

// signal sends a signal; a container that has ended already, or is gone, is looked at instead.
func (w *worker) signal(ctx context.Context, id, signal string) error {
	err := w.a.cfg.Runtime.Kill(ctx, id, signal)
	if err == nil {
		return nil
	}
	if errors.Is(err, podman.ErrConflict) || errors.Is(err, podman.ErrNotFound) {
		return w.reinspect(ctx, id)
	}
	return err
}

// reinspect asks Podman for the truth of a container whose end was not heard of.
func (w *worker) reinspect(ctx context.Context, id string) error {
	x, err := w.a.cfg.Runtime.Inspect(ctx, id)
	if errors.Is(err, podman.ErrNotFound) {
		w.a.store.remove(id)
		return nil
	}
	if err != nil {
		return err
	}
	if x.State == podman.Exited {
		at := x.Finished
		if at.IsZero() {
			at = w.a.cfg.Now()
		}
		w.a.store.exited(podman.Exit{ID: id, Code: x.ExitCode, At: at})
	}
	return nil
}

func (w *worker) preStop(ctx context.Context, pod *corev1.Pod, k plan.Kill, d *deadline) {
	hook, cancel := context.WithCancel(ctx)
	defer cancel()
	done := make(chan struct{})
	var err error
	go func() {
		defer close(done)
		_, err = w.a.prober.Hook(hook, w.target(pod, k.Spec, k.Container), k.Spec.Lifecycle.PreStop)
	}()
	if !d.wait(ctx, done) {
		cancel()
		<-done
		return
	}
	if err != nil && ctx.Err() == nil {
		w.event(k.Container.Name, corev1.EventTypeWarning, "FailedPreStopHook", "PreStopHook failed")
	}
}

// stopSignal is the container's own, its image's, or SIGTERM.
func (w *worker) stopSignal(ctx context.Context, k plan.Kill) string {
	if k.Spec != nil && k.Spec.Lifecycle != nil && k.Spec.Lifecycle.StopSignal != nil {
		return string(*k.Spec.Lifecycle.StopSignal)
	}
	if img, err := w.a.images.Lookup(ctx, k.Container.ImageID); err == nil && img.StopSignal != "" {
		return img.StopSignal
	}
	return "SIGTERM"
}

// settle gives ended containers their reason and message, once each.
func (w *worker) settle(ctx context.Context, pod *corev1.Pod) {
	for _, c := range w.a.store.of(w.uid) {
		e, ok := w.a.store.get(c.ID)
		if !ok || e.State != plan.Exited || e.settled {
			continue
		}
		w.a.probes.Remove(w.uid, c.Name)
		reason := plan.ReasonCompleted
		message := ""
		switch {
		case e.cutOff:
			reason = plan.ReasonNodeReboot
			message = "The machine went down while the container ran; how it would have ended is unknown"
		case e.ExitCode != 0:
			reason = plan.ReasonError
		}
		if e.ExitCode == 137 && !e.cutOff {
			// Only SIGKILL is the kernel's way to end who uses too much memory.
			if x, err := w.a.cfg.Runtime.Inspect(ctx, c.ID); err == nil && x.OOMKilled {
				reason = plan.ReasonOOMKilled
			} else if err != nil && !errors.Is(err, podman.ErrNotFound) {
				continue
			}
		}
		if spec := podSpecOf(pod, c.Name); spec != nil && message == "" {
			message = podfile.Termination(spec, w.terminationLog(c.Name, c.Attempt),
				w.logPath(pod, c.Name, c.Attempt), e.ExitCode != 0)
		}
		w.a.store.update(c.ID, func(e *entry) { e.Reason, e.Message, e.settled = reason, message, true })
	}
}

func podSpecOf(pod *corev1.Pod, name string) *corev1.Container {
	if pod == nil {
		return nil
	}
	return specOf(pod, name)
}

// remove removes one dead container and what is kept of attempts before it.
func (w *worker) remove(ctx context.Context, pod *corev1.Pod, id string) error {
	e, ok := w.a.store.get(id)
	if err := w.a.cfg.Runtime.Remove(ctx, id, true); err != nil {
		return err
	}
	w.a.store.remove(id)
	if ok && e.State == plan.Exited {
		log := w.logPath(pod, e.Name, e.Attempt)
		old, err := filepath.Glob(log + ".*") // its rotated parts
		if err != nil {
			return err
		}
		for _, path := range append(old, log, w.terminationLog(e.Name, e.Attempt)) {
			if err := os.Remove(path); err != nil && !errors.Is(err, os.ErrNotExist) {
				return err
			}
		}
	}
	return nil
}

// clean removes everything of the pod from this host but its logs.
func (w *worker) clean(ctx context.Context) error {
	w.closePorts()
	w.a.probes.RemovePod(w.uid)
	w.a.images.Forget(string(w.uid))
	containers := w.a.store.of(w.uid)
	group, grouped := w.a.groups.get(w.uid)
	if grouped {
		if err := w.a.cfg.Runtime.RemovePod(ctx, group.id); err != nil {
			return err
		}
		w.a.groups.remove(w.uid)
	}
	for _, c := range containers {
		if !grouped {
			if err := w.a.cfg.Runtime.Remove(ctx, c.ID, true); err != nil {
				return err
			}
		}
		w.a.store.remove(c.ID)
	}
	if !w.known && len(containers) == 0 && !grouped {
		return nil
	}
	if err := w.a.cfg.Network.Remove(ctx, string(w.uid)); err != nil {
		return err
	}
	if err := w.a.cfg.Volumes.Teardown(ctx, w.uid); err != nil {
		return fmt.Errorf("tear down volumes: %w", err)
	}
	w.sandbox, w.known = false, false
	return nil
}

func (w *worker) removeLogs(pod *corev1.Pod) error {
	if pod != nil {
		return os.RemoveAll(logDir(w.a.cfg.DataDir, pod))
	}
	dirs, err := filepath.Glob(filepath.Join(w.a.cfg.DataDir, "logs", "*_"+string(w.uid)))
	if err != nil {
		return err
	}
	for _, d := range dirs {
		if err := os.RemoveAll(d); err != nil {
			return err
		}
	}
	return nil
}

// deadline is the end of a container's grace period. It follows the pod: a second deletion may
// shorten it while we wait.
type deadline struct {
	w     *worker
	start time.Time
	probe *int64 // the grace of the probe that failed, in seconds; nil: the pod's
	least time.Time
}

func newDeadline(w *worker, k plan.Kill) *deadline {
	d := &deadline{w: w, start: time.Now()}
	if k.Probe != nil {
		d.probe = k.Probe.TerminationGracePeriodSeconds
	}
	return d
}

// end returns when the grace is over as things are, and a channel that is closed when they change.
func (d *deadline) end() (time.Time, <-chan struct{}) {
	pod, _, changed := d.w.current()
	g := orphanGrace
	if pod != nil {
		g = time.Duration(grace(pod)) * time.Second
		if d.probe != nil && pod.DeletionTimestamp == nil {
			g = time.Duration(*d.probe) * time.Second
		}
	}
	end := d.start.Add(g)
	if end.Before(d.least) {
		end = d.least
	}
	return end, changed
}

// left is what remains of the grace period.
func (d *deadline) left() time.Duration {
	end, _ := d.end()
	return time.Until(end)
}

// atLeast leaves the container this much time from now, whatever the pod says.
func (d *deadline) atLeast(least time.Duration) { d.least = time.Now().Add(least) }

// wait waits for c; false when the grace period or ctx ended first.
func (d *deadline) wait(ctx context.Context, c <-chan struct{}) bool {
	for {
		end, changed := d.end()
		timer := time.NewTimer(time.Until(end))
		select {
		case <-c:
			timer.Stop()
			return true
		case <-timer.C:
			return false
		case <-ctx.Done():
			timer.Stop()
			return false
		case <-changed:
			timer.Stop()
		}
	}
}
