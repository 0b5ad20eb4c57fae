package worker

import (
	"context"
	"errors"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/podman-swarm/podman-swarm/internal/agent/plan"
	"github.com/podman-swarm/podman-swarm/internal/single"
)

// Fence says what a node that may be cut off must not do; *fence.Fence is one.
type Fence interface {
	Cut() bool  // pods that must not run twice are to be stopped
	Hold() bool // such pods must not be started
}

const (
	// reasonCutOff is why a container waits that was stopped, or is not started, behind the fence.
	reasonCutOff = "NodeCutOff"
	// reasonPredecessor is why one waits until another pod, in whose place it is, has ended.
	reasonPredecessor = "PredecessorNotEnded"
)

// errHeld ends the start of a pod that must wait after all: that was found out while its images were pulled.
var errHeld = errors.New("the pod must not be started now")

// fenced tells whether the pod must not run here now: it must not run twice, and this node cannot
// tell what the others do. While the node merely holds, what runs already runs on.
func (w *Worker) fenced(ctx context.Context, pod *corev1.Pod) bool {
	f := w.host.Fence
	if f == nil || !f.Hold() || !w.mustBeSingle(ctx, pod) {
		return false
	}
	return f.Cut() || len(w.running()) == 0
}

// succeeds tells whether the pod must wait for the end of another one: of its name on this node, or, if it must
// not run twice, anywhere, which it replaced in a merge. What runs already runs on: it has waited.
func (w *Worker) succeeds(ctx context.Context, pod *corev1.Pod) bool {
	w.until = ""
	if len(w.running()) > 0 {
		w.waits.Store(false)
		return false
	}
	w.waits.Store(true) // before it asks: a change of the answer must not go by unheard
	w.until = w.host.Namesake(pod)
	if w.until == "" && w.host.Wait != nil && w.mustBeSingle(ctx, pod) {
		w.until = w.host.Wait(pod)
	}
	w.waits.Store(w.until != "")
	return w.until != ""
}

// Waits tells whether the worker waits for another pod's end, and is to be poked when that may have come.
func (w *Worker) Waits() bool { return w.waits.Load() }

// Lingers tells whether this is the worker of a pod of that name which the API has no more, and which may
// not have ended yet.
func (w *Worker) Lingers(namespace, name string) bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.gone && w.name == (types.NamespacedName{Namespace: namespace, Name: name}) && !w.vacated.Load()
}

// held tells whether the pod must not be started now, whatever it was a moment ago.
func (w *Worker) held(ctx context.Context, pod *corev1.Pod) error {
	if w.fenced(ctx, pod) || w.succeeds(ctx, pod) {
		return errHeld
	}
	return nil
}

// await says what the pod waits for. Its worker is poked when that has changed.
func (w *Worker) await(ctx context.Context, pod *corev1.Pod) error {
	if err := w.adopt(ctx, pod); err != nil {
		return err
	}
	w.settle(ctx, pod)
	for i := range pod.Spec.Containers {
		w.waiting[pod.Spec.Containers[i].Name] = plan.Waiting{Reason: reasonPredecessor, Message: w.until}
	}
	w.note(reasonPredecessor, w.until)
	return w.tell(pod, false)
}

// goOn forgets why containers waited that need not wait any more.
func (w *Worker) goOn() {
	for name, why := range w.waiting {
		if why.Reason == reasonCutOff || why.Reason == reasonPredecessor {
			delete(w.waiting, name)
		}
	}
}

func (w *Worker) running() []plan.Container {
	var out []plan.Container
	for _, c := range w.host.Ledger.Of(w.uid) {
		if c.State == plan.Running || c.State == plan.Unknown {
			out = append(out, c)
		}
	}
	return out
}

// suspend stops what runs of the pod, quickly, so that it has ended when the others replace it. It is
// started again when the fence is gone and the API still has the pod. What a former agent left is stopped
// before it is adopted: that may wait for the API, or fail, and nothing of it is needed to stop.
func (w *Worker) suspend(ctx context.Context, pod *corev1.Pod) error {
	why := "this node does not see a majority of the cluster's nodes"
	if !w.host.Fence.Cut() {
		why = "nodes were lost, or met again, a moment ago: it is not known yet whether it runs elsewhere"
	}
	var kills []plan.Kill
	for _, c := range w.running() {
		kills = append(kills, plan.Kill{
			Container: c, Spec: plan.SpecOf(pod, c.Name), Restart: true, Message: "Stopping container " + c.Name + ": " + why,
		})
	}
	for i := range pod.Spec.Containers {
		w.waiting[pod.Spec.Containers[i].Name] = plan.Waiting{Reason: reasonCutOff, Message: "not run: " + why}
	}
	if err := w.killAll(ctx, pod, kills); err != nil {
		return err
	}
	return errors.Join(w.adopt(ctx, pod), w.tell(pod, false))
}

// mustBeSingle tells whether the pod must not run twice at a time. What cannot be found out counts as such.
func (w *Worker) mustBeSingle(ctx context.Context, pod *corev1.Pod) bool {
	known := w.single.Load()
	if known == nil {
		ctx, cancel := context.WithTimeout(ctx, callTimeout)
		defer cancel()
		unknown := false
		is := single.Pod(pod, func(name string) *corev1.PersistentVolumeClaim {
			// What this node remembers is enough to know: access modes never change.
			claim, err := w.host.Client.CoreV1().PersistentVolumeClaims(pod.Namespace).Get(ctx, name, metav1.GetOptions{ResourceVersion: "0"})
			if err != nil {
				unknown = unknown || !apierrors.IsNotFound(err)
				return nil
			}
			return claim
		})
		if !is && unknown {
			return true // and ask again
		}
		w.single.Store(&is)
		return is
	}
	return *known
}

// maybeSingle tells without the API whether the pod may be one that must not run twice. The caller holds mu.
func (w *Worker) maybeSingle() bool {
	if known := w.single.Load(); known != nil {
		return *known
	}
	return w.pod == nil || single.Pod(w.pod, func(string) *corev1.PersistentVolumeClaim {
		return &corev1.PersistentVolumeClaim{Spec: corev1.PersistentVolumeClaimSpec{
			AccessModes: []corev1.PersistentVolumeAccessMode{corev1.ReadWriteOnce},
		}}
	})
}
