package bare

import (
	"context"
	"fmt"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"

	"github.com/podman-swarm/podman-swarm/internal/swarm"
)

// Change is of a pod of now and of then; nil: there is or was none.
type Change struct{ Now, Then *corev1.Pod }

// Needed tells whether there is anything to do. A pod that had ended then is not run again.
func (p Change) Needed() bool {
	switch {
	case p.Then == nil:
		return p.Now != nil && p.Now.DeletionTimestamp == nil
	case p.Then.DeletionTimestamp != nil, p.Then.Status.Phase == corev1.PodSucceeded, p.Then.Status.Phase == corev1.PodFailed:
		return false
	}
	return p.Now == nil || p.Now.DeletionTimestamp != nil || !equality.Semantic.DeepEqual(p.Now, p.asThen())
}

// asThen is the pod of now with what people wrote of it then.
func (p Change) asThen() *corev1.Pod {
	out := p.Now.DeepCopy()
	out.Labels, out.Annotations, out.Spec = p.Then.Labels, p.Then.Annotations, *p.Then.Spec.DeepCopy()
	out.Spec.NodeName, out.Spec.EphemeralContainers = p.Now.Spec.NodeName, p.Now.Spec.EphemeralContainers
	return out
}

// blank is the pod of then as somebody might have written it: not bound yet.
func (p Change) blank() *corev1.Pod {
	out := &corev1.Pod{ObjectMeta: metav1.ObjectMeta{
		Name: p.Then.Name, Namespace: p.Then.Namespace, Labels: p.Then.Labels, Annotations: p.Then.Annotations,
		Finalizers: p.Then.Finalizers, OwnerReferences: p.Then.OwnerReferences,
	}, Spec: *p.Then.Spec.DeepCopy()}
	out.Spec.NodeName, out.Spec.EphemeralContainers = "", nil
	return out
}

// Make makes a pod what it was, as far as a pod that runs may be changed, and makes it again
// when it is another one.
func (p Change) Make(ctx context.Context, client kubernetes.Interface, say swarm.Progress) error {
	switch {
	case p.Then == nil:
		return end(ctx, client, p.Now)
	case p.Now != nil && p.Now.DeletionTimestamp == nil:
		_, err := client.CoreV1().Pods(p.Now.Namespace).Update(ctx, p.asThen(), metav1.UpdateOptions{})
		switch {
		case err == nil:
			return nil
		case !apierrors.IsInvalid(err):
			return fmt.Errorf("update pod %s/%s: %w", p.Now.Namespace, p.Now.Name, err)
		case p.Now.UID == p.Then.UID:
			say("pod %s/%s stays as it is: a pod that runs cannot be changed so", p.Now.Namespace, p.Now.Name)
			return nil
		}
		if err := end(ctx, client, p.Now); err != nil {
			return err
		}
	}
	return p.again(ctx, client, say)
}

// end ends a pod as if somebody had deleted it, with its grace.
func end(ctx context.Context, client kubernetes.Interface, p *corev1.Pod) error {
	err := client.CoreV1().Pods(p.Namespace).Delete(ctx, p.Name, metav1.DeleteOptions{Preconditions: &metav1.Preconditions{UID: &p.UID}})
	if err != nil && !apierrors.IsNotFound(err) && !apierrors.IsConflict(err) { // a conflict: it is another pod by now
		return fmt.Errorf("delete pod %s/%s: %w", p.Namespace, p.Name, err)
	}
	return nil
}

const (
	// podPatience is how long the API may refuse a pod, as long as it has not seen what the pod refers to,
	// and gracePatience how much of its predecessor's grace is waited for at most.
	podPatience   = 30 * time.Second
	gracePatience = 2 * time.Minute
	podPoll       = 200 * time.Millisecond
)

// again makes the pod of then, when one that has its name has ended.
func (p Change) again(ctx context.Context, client kubernetes.Interface, say swarm.Progress) error {
	patience := podPatience
	if p.Now != nil && p.Now.Spec.TerminationGracePeriodSeconds != nil {
		patience += min(time.Duration(*p.Now.Spec.TerminationGracePeriodSeconds)*time.Second, gracePatience)
	}
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	name := p.Then.Namespace + "/" + p.Then.Name
	for {
		_, err := client.CoreV1().Pods(p.Then.Namespace).Create(ctx, p.blank(), metav1.CreateOptions{})
		if err == nil {
			say("pod %s is made again", name)
			return nil
		}
		if apierrors.IsInvalid(err) {
			return fmt.Errorf("make pod %s again: %w", name, err)
		}
		select {
		case <-ctx.Done():
			if apierrors.IsAlreadyExists(err) && p.Now != nil {
				return fmt.Errorf("pod %s has not ended on node %s within %s", name, p.Now.Spec.NodeName, patience)
			}
			return fmt.Errorf("make pod %s again: %w", name, err)
		case <-time.After(podPoll):
		}
	}
}
