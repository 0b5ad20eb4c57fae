package worker

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"golang.org/x/sync/errgroup"
	corev1 "k8s.io/api/core/v1"

	"github.com/podman-swarm/podman-swarm/internal/agent/ledger"
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
func (w *Worker) terminate(ctx context.Context, pod *corev1.Pod) error {
	if w.deleted {
		return nil
	}
	w.host.Probes.Terminating(w.uid)
	if err := w.stop(ctx, pod); err != nil {
		return err
	}
	if err := w.tell(pod, true); err != nil {
		return err
	}
	if err := w.clean(ctx); err != nil {
		return err
	}
	w.vacated.Store(true) // before the API has the next one of its name
	if err := w.removeLogs(pod); err != nil {
		return err
	}
	if err := w.forget(ctx, pod); err != nil {
		return err
	}
	w.deleted = true
	return nil
}

// finish ends a pod that is over but stays in the API: its logs stay too.
func (w *Worker) finish(ctx context.Context, pod *corev1.Pod) error {
	if w.vacated.Load() {
		return nil
	}
	if err := w.stop(ctx, pod); err != nil {
		return err
	}
	if err := w.tell(pod, true); err != nil {
		return err
	}
	if err := w.clean(ctx); err != nil {
		return err
	}
	w.vacated.Store(true)
	return nil
}

// leave removes what is left of a pod that the API has no more.
func (w *Worker) leave(ctx context.Context, pod *corev1.Pod) (bool, error) {
	if err := w.stop(ctx, pod); err != nil {
		return false, err
	}
	if err := w.clean(ctx); err != nil {
		return false, err
	}
	return true, w.removeLogs(pod)
}

// stop ends all containers that run, each with its preStop hook and grace.
func (w *Worker) stop(ctx context.Context, pod *corev1.Pod) error {
	var kills []plan.Kill
	for _, c := range w.host.Ledger.Of(w.uid) {
		if c.State == plan.Exited || c.State == plan.Created {
			continue
		}
		k := plan.Kill{Container: c, Message: "Stopping container " + c.Name, Spec: plan.SpecOf(pod, c.Name)}
		kills = append(kills, k)
	}
	if len(kills) == 0 {
		w.settle(ctx, pod)
		return nil
	}
	return w.killAll(ctx, pod, kills)
}

// killAll ends containers, all at the same time.
func (w *Worker) killAll(ctx context.Context, pod *corev1.Pod, kills []plan.Kill) error {
	w.hasty = w.host.Fence != nil && (pod == nil || w.mustBeSingle(ctx, pod))
	var g errgroup.Group
	for _, k := range kills {
		g.Go(func() error { return w.kill(ctx, pod, k) })
	}
	err := g.Wait()
	w.settle(ctx, pod)
	return err
}

// kill ends one container: preStop hook, stop signal, grace, SIGKILL. It returns when it has ended.
func (w *Worker) kill(ctx context.Context, pod *corev1.Pod, k plan.Kill) error {
	c := k.Container
	e, ok := w.host.Ledger.Get(c.ID)
	if !ok || e.State == plan.Exited {
		return nil
	}
	w.event(c.Name, corev1.EventTypeNormal, "Killing", k.Message)
	w.host.Ledger.Update(c.ID, func(e *ledger.Entry) { e.Restart = e.Restart || k.Restart })
	d := newDeadline(w, k)
	if k.Spec != nil && k.Spec.Lifecycle != nil && k.Spec.Lifecycle.PreStop != nil && d.left() > 0 {
		w.preStop(ctx, pod, k, d)
	}
	d.atLeast(minGrace)
	if err := w.signal(ctx, c.ID, w.stopSignal(ctx, k)); err != nil {
		return err
	}
	for !d.wait(ctx, e.Ended) {
		if err := context.Cause(ctx); err != nil {
			return err
		}
		// Both a no-op when it has ended meanwhile and we have not heard.
		if err := w.signal(ctx, c.ID, "SIGKILL"); err != nil {
			return err
		}
		if _, err := w.host.Look(ctx, c.ID); err != nil {
			return err
		}
		d.atLeast(killed)
	}
	return nil
}

// signal sends a signal; a container that has ended already, or is gone, is looked at instead.
func (w *Worker) signal(ctx context.Context, id, signal string) error {
	err := w.host.Runtime.Kill(ctx, id, signal)
	if err == nil {
		return nil
	}
	if errors.Is(err, podman.ErrConflict) || errors.Is(err, podman.ErrNotFound) {
		_, err = w.host.Look(ctx, id)
	}
	return err
}

func (w *Worker) preStop(ctx context.Context, pod *corev1.Pod, k plan.Kill, d *deadline) {
	hook, cancel := context.WithCancel(ctx)
	defer cancel()
	done := make(chan struct{})
	var err error
	go func() {
		defer close(done)
		_, err = w.host.Prober.Hook(hook, w.target(pod, k.Spec, k.Container), k.Spec.Lifecycle.PreStop)
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
func (w *Worker) stopSignal(ctx context.Context, k plan.Kill) string {
	if k.Spec != nil && k.Spec.Lifecycle != nil && k.Spec.Lifecycle.StopSignal != nil {
		return string(*k.Spec.Lifecycle.StopSignal)
	}
	if img, err := w.host.Images.Lookup(ctx, k.Container.ImageID); err == nil && img.StopSignal != "" {
		return img.StopSignal
	}
	return "SIGTERM"
}

// settle gives ended containers their reason and message, once each.
func (w *Worker) settle(ctx context.Context, pod *corev1.Pod) {
	containers := w.host.Ledger.Of(w.uid)
	for _, c := range containers {
		e, ok := w.host.Ledger.Get(c.ID)
		if !ok || e.State != plan.Exited || e.Settled {
			continue
		}
		if plan.Latest(containers, c.Name).ID == c.ID { // else it is its successor that is probed
			w.host.Probes.Remove(w.uid, c.Name)
		}
		reason := plan.ReasonCompleted
		message := ""
		switch {
		case e.CutOff:
			reason = plan.ReasonNodeReboot
			message = "The machine went down while the container ran; how it would have ended is unknown"
		case e.ExitCode != 0:
			reason = plan.ReasonError
		}
		if e.ExitCode == 137 && !e.CutOff {
			// Only SIGKILL is the kernel's way to end who uses too much memory.
			if x, err := w.host.Runtime.Inspect(ctx, c.ID); err == nil && x.OOMKilled {
				reason = plan.ReasonOOMKilled
			} else if err != nil && !errors.Is(err, podman.ErrNotFound) {
				continue
			}
		}
		if spec := plan.SpecOf(pod, c.Name); spec != nil && message == "" {
			message = podfile.Termination(spec, w.terminationLog(c.Name, c.Attempt),
				w.logPath(pod, c.Name, c.Attempt), e.ExitCode != 0)
		}
		w.host.Ledger.Update(c.ID, func(e *ledger.Entry) { e.Reason, e.Message, e.Settled = reason, message, true })
	}
}

// remove removes one dead container and what is kept of attempts before it.
func (w *Worker) remove(ctx context.Context, pod *corev1.Pod, id string) error {
	e, ok := w.host.Ledger.Get(id)
	if err := w.host.Runtime.Remove(ctx, id, true); err != nil {
		return err
	}
	w.host.Ledger.Remove(id)
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
func (w *Worker) clean(ctx context.Context) error {
	w.closePorts()
	w.host.Probes.RemovePod(w.uid)
	w.host.Images.Forget(string(w.uid))
	containers := w.host.Ledger.Of(w.uid)
	group, grouped := w.host.Groups.Get(w.uid)
	if grouped {
		if err := w.host.Runtime.RemovePod(ctx, group.ID); err != nil {
			return err
		}
		w.host.Groups.Remove(w.uid)
	}
	for _, c := range containers {
		if !grouped {
			if err := w.host.Runtime.Remove(ctx, c.ID, true); err != nil {
				return err
			}
		}
		w.host.Ledger.Remove(c.ID)
	}
	if !w.known && len(containers) == 0 && !grouped {
		return nil
	}
	if err := w.host.Network.Remove(ctx, string(w.uid)); err != nil {
		return err
	}
	if err := w.host.Volumes.Teardown(ctx, w.uid); err != nil {
		return fmt.Errorf("tear down volumes: %w", err)
	}
	w.sandbox, w.known = false, false
	return nil
}

func (w *Worker) removeLogs(pod *corev1.Pod) error {
	if pod != nil {
		return os.RemoveAll(LogDir(w.host.DataDir, pod))
	}
	dirs, err := filepath.Glob(filepath.Join(w.host.DataDir, "logs", "*_"+string(w.uid)))
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
