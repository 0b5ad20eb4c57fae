package worker

import (
	"context"
	"encoding/json"
	"fmt"
	"strconv"
	"time"

	corev1 "k8s.io/api/core/v1"
	apiequality "k8s.io/apimachinery/pkg/api/equality"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/strategicpatch"

	"github.com/podman-swarm/podman-swarm/internal/agent/plan"
)

// callTimeout bounds one call to the API server.
const callTimeout = 30 * time.Second

// Base is the newest status that is known to be in the API: the one we wrote last, until the
// informer brings something newer.
func (w *Worker) Base(pod *corev1.Pod) *corev1.PodStatus {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.told != nil && revision(pod.ResourceVersion) <= w.revision {
		return w.told
	}
	return &pod.Status
}

func revision(s string) uint64 {
	n, err := strconv.ParseUint(s, 10, 64)
	if err != nil {
		return 0
	}
	return n
}

// status computes the pod's status from what is known now.
func (w *Worker) status(pod *corev1.Pod, ended bool) corev1.PodStatus {
	containers := w.host.Ledger.Of(w.uid)
	// What others wrote into the status counts as it was when we wrote last: the informer may be
	// behind that, and we would take their words back.
	now := *pod
	now.Status = *w.Base(pod)
	return plan.Status(plan.StatusInput{
		Pod: &now, Old: now.Status, Containers: containers, Health: w.health(pod, containers),
		Waiting: w.waiting, PodIPs: w.podIPs(pod), HostIPs: w.hostIPs(), Sandbox: w.sandbox && !ended,
		Boot: w.host.Boot, Ended: ended, Failed: w.failed, Now: w.host.Now(),
	})
}

// tell writes the status to the API if it differs from what is there. Unless the pod has ended it is
// never told as over. Without a leader a write takes long, which what is urgent does not wait for: the next
// step writes it again.
func (w *Worker) tell(pod *corev1.Pod, ended bool) error {
	old := w.Base(pod)
	s := w.status(pod, ended)
	if !ended {
		s = plan.Hold(s, *old)
	}
	if apiequality.Semantic.DeepEqual(*old, s) {
		return nil
	}
	patch, err := statusPatch(pod.UID, old, &s)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(w.urgent, callTimeout) // see urgent
	defer cancel()
	got, err := w.host.Client.CoreV1().Pods(pod.Namespace).Patch(ctx, pod.Name, types.StrategicMergePatchType,
		patch, metav1.PatchOptions{}, "status")
	switch {
	case apierrors.IsNotFound(err), apierrors.IsConflict(err):
		return nil // it is another pod by now, or none: the informer will say so
	case err != nil:
		return fmt.Errorf("write pod status: %w", err)
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	w.told, w.revision = &got.Status, revision(got.ResourceVersion)
	return nil
}

// statusPatch is the difference between two statuses, bound to the pod's UID.
func statusPatch(uid types.UID, old, new *corev1.PodStatus) ([]byte, error) {
	before, err := json.Marshal(corev1.Pod{Status: *old})
	if err != nil {
		return nil, fmt.Errorf("encode pod status: %w", err)
	}
	after, err := json.Marshal(corev1.Pod{ObjectMeta: metav1.ObjectMeta{UID: uid}, Status: *new})
	if err != nil {
		return nil, fmt.Errorf("encode pod status: %w", err)
	}
	patch, err := strategicpatch.CreateTwoWayMergePatch(before, after, corev1.Pod{})
	if err != nil {
		return nil, fmt.Errorf("compare pod status: %w", err)
	}
	return patch, nil
}

// forget has the API remove a pod of which nothing is left here.
func (w *Worker) forget(ctx context.Context, pod *corev1.Pod) error {
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	zero := int64(0)
	err := w.host.Client.CoreV1().Pods(pod.Namespace).Delete(ctx, pod.Name, metav1.DeleteOptions{
		GracePeriodSeconds: &zero, Preconditions: &metav1.Preconditions{UID: &pod.UID},
	})
	if err != nil && !apierrors.IsNotFound(err) && !apierrors.IsConflict(err) {
		return fmt.Errorf("delete pod: %w", err)
	}
	return nil
}

// health gathers what the probes know of the containers.
func (w *Worker) health(pod *corev1.Pod, containers []plan.Container) map[string]plan.Health {
	out := make(map[string]plan.Health, len(containers))
	for i := range containers {
		c := &containers[i]
		spec := plan.SpecOf(pod, c.Name)
		e, ok := w.host.Ledger.Get(c.ID)
		if c.State != plan.Running || spec == nil || !ok {
			continue
		}
		out[c.ID] = plan.Health{
			Started: w.host.Probes.Started(w.uid, spec, c.ID), Ready: w.host.Probes.Ready(w.uid, spec, c.ID), Failed: e.Failed,
		}
	}
	return out
}

func (w *Worker) hostIPs() []string {
	out := make([]string, 0, len(w.host.NodeIPs))
	for _, ip := range w.host.NodeIPs {
		out = append(out, ip.String())
	}
	return out
}
