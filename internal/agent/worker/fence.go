package worker

import (
	"context"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/podman-swarm/podman-swarm/internal/agent/fence"
	"github.com/podman-swarm/podman-swarm/internal/agent/plan"
)

// Fence says what a node that may be cut off must not do; *fence.Fence is one.
type Fence interface {
	Cut() bool  // pods that must not run twice are to be stopped
	Hold() bool // such pods must not be started
}

// reasonCutOff is why a container waits that was stopped, or is not started, behind the fence.
const reasonCutOff = "NodeCutOff"

// fenced tells whether the pod must not run here now: it must not run twice, and this node cannot
// tell what the others do. While the node merely holds, what runs already runs on.
func (w *Worker) fenced(ctx context.Context, pod *corev1.Pod) bool {
	f := w.host.Fence
	if f == nil || !f.Hold() || !w.mustBeSingle(ctx, pod) {
		return false
	}
	return f.Cut() || len(w.running()) == 0
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
// started again when the fence is gone and the API still has the pod.
func (w *Worker) suspend(ctx context.Context, pod *corev1.Pod) error {
	if err := w.adopt(ctx, pod); err != nil {
		return err
	}
	const why = "this node does not see a majority of the cluster's nodes"
	var kills []plan.Kill
	for _, c := range w.running() {
		kills = append(kills, plan.Kill{
			Container: c, Spec: specOf(pod, c.Name), Restart: true, Message: "Stopping container " + c.Name + ": " + why,
		})
	}
	for i := range pod.Spec.Containers {
		w.waiting[pod.Spec.Containers[i].Name] = plan.Waiting{Reason: reasonCutOff, Message: "not run: " + why}
	}
	w.rush = fence.StopWithin
	defer func() { w.rush = 0 }()
	if err := w.killAll(ctx, pod, kills); err != nil {
		return err
	}
	return w.tell(ctx, pod, false)
}

// mustBeSingle is the rule of control/liveness, from this side: StatefulSets, and volumes that one
// node at a time writes. What cannot be found out counts as such.
func (w *Worker) mustBeSingle(ctx context.Context, pod *corev1.Pod) bool {
	if w.single == nil {
		owner := metav1.GetControllerOf(pod)
		single := owner != nil && owner.Kind == "StatefulSet"
		for _, name := range claims(pod) {
			writer, err := w.oneWriter(ctx, pod.Namespace, name)
			if err != nil {
				return true // and ask again
			}
			single = single || writer
		}
		w.single = &single
	}
	return *w.single
}

// claims names the claims of a pod's volumes.
func claims(pod *corev1.Pod) []string {
	var out []string
	for i := range pod.Spec.Volumes {
		switch v := &pod.Spec.Volumes[i]; {
		case v.PersistentVolumeClaim != nil:
			out = append(out, v.PersistentVolumeClaim.ClaimName)
		case v.Ephemeral != nil:
			out = append(out, pod.Name+"-"+v.Name) // by its contract
		}
	}
	return out
}

// oneWriter tells whether a claim is written by one node. What this node remembers is enough to know:
// access modes never change.
func (w *Worker) oneWriter(ctx context.Context, namespace, name string) (bool, error) {
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	claim, err := w.host.Client.CoreV1().PersistentVolumeClaims(namespace).Get(ctx, name, metav1.GetOptions{ResourceVersion: "0"})
	if apierrors.IsNotFound(err) {
		return false, nil
	}
	if err != nil {
		return false, err
	}
	one := false
	for _, m := range claim.Spec.AccessModes {
		if m == corev1.ReadWriteMany {
			return false, nil
		}
		one = one || m == corev1.ReadWriteOnce || m == corev1.ReadWriteOncePod
	}
	return one, nil
}
