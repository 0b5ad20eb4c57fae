package operate

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/apimachinery/pkg/types"

	"github.com/podman-swarm/podman-swarm/internal/control/liveness"
	"github.com/podman-swarm/podman-swarm/internal/gossip"
	"github.com/podman-swarm/podman-swarm/internal/join"
	"github.com/podman-swarm/podman-swarm/internal/state"
	"github.com/podman-swarm/podman-swarm/internal/swarm"
)

// nodes changes who belongs to the swarm.
type nodes struct{ Config }

// Remove implements swarm.Nodes.
func (n nodes) Remove(ctx context.Context, name string) error {
	if name == n.Node {
		return swarm.Refused("this is node %s itself: run podman-swarm leave on it", name)
	}
	m, heard := n.Peers.Member(name)
	if heard && m.Alive() {
		return swarm.Refused("node %s is alive: run podman-swarm leave on it, or stop it first", name)
	}
	if err := n.mustKnow(ctx, name, heard); err != nil {
		return err
	}
	if err := n.remember(ctx, name, 0); err != nil {
		return err
	}
	return n.strikeOut(ctx, name) // every node forgets it now: see Removals
}

// mustKnow refuses names that mean nothing.
func (n nodes) mustKnow(ctx context.Context, name string, heard bool) error {
	if _, err := n.Client.CoreV1().Nodes().Get(ctx, name, metav1.GetOptions{}); err == nil || heard {
		return nil
	} else if !apierrors.IsNotFound(err) {
		return unavailable(err)
	}
	if _, ok := n.Store.View().Get(join.NodesPrefix + name); ok {
		return nil
	}
	return swarm.NotFound("there is no node %q: see psctl swarm members", name)
}

// strikeOut removes a node's object and record. What ran there runs elsewhere after that.
func (n nodes) strikeOut(ctx context.Context, name string) error {
	err := n.Client.CoreV1().Nodes().Delete(ctx, name, metav1.DeleteOptions{})
	if err != nil && !apierrors.IsNotFound(err) {
		return fmt.Errorf("delete node %s: %w", name, err)
	}
	_, err = n.Store.Apply(ctx, state.Write{Key: join.NodesPrefix + name, Delete: true, Expect: state.Any})
	if err != nil && !errors.Is(err, state.ErrConflict) { // a conflict: there is none
		return unavailable(err)
	}
	return nil
}

// Fence implements swarm.Nodes.
func (n nodes) Fence(ctx context.Context, name string) error {
	if m, ok := n.Peers.Member(name); ok && m.Alive() {
		return swarm.Refused("node %s is alive: its pods would run twice. Stop it first, or drain it", name)
	}
	return n.annotate(ctx, name, "true")
}

// Unfence implements swarm.Nodes.
func (n nodes) Unfence(ctx context.Context, name string) error { return n.annotate(ctx, name, nil) }

func (n nodes) annotate(ctx context.Context, name string, value any) error {
	patch, err := json.Marshal(map[string]any{"metadata": map[string]any{"annotations": map[string]any{liveness.FencedAnnotation: value}}})
	if err != nil {
		return err
	}
	_, err = n.Client.CoreV1().Nodes().Patch(ctx, name, types.MergePatchType, patch, metav1.PatchOptions{})
	if apierrors.IsNotFound(err) {
		return swarm.NotFound("there is no node %q: see psctl swarm members", name)
	}
	return err
}

const (
	// leaveTimeout bounds what a leaving node waits for the others, emptyTimeout what for its pods.
	leaveTimeout = 90 * time.Second
	emptyTimeout = 45 * time.Second
	emptyPoll    = 200 * time.Millisecond
)

// Leave implements swarm.Nodes.
func (n nodes) Leave(ctx context.Context, req swarm.LeaveRequest, say swarm.Progress) error {
	others := 0
	for _, m := range n.Peers.Members() {
		if m.State == gossip.Alive && m.Name != n.Node {
			others++
		}
	}
	if others == 0 && !req.Force {
		return swarm.Refused("node %s is the only one that is alive: leaving would end the swarm and its state. Say --force to do it, after a backup", n.Node)
	}
	// Half a farewell is worse than none: it goes on when the client has gone.
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), leaveTimeout)
	defer cancel()
	if err := n.farewell(ctx, say); err != nil {
		if !req.Force {
			return err
		}
		say("the others could not be told everything: %v", err)
	}
	say("leaving the gossip")
	if err := n.Peers.Gossip.Leave(ctx); err != nil && !req.Force {
		return err
	}
	return n.Left()
}

// farewell tells the others: the pods go elsewhere, and nobody waits for this replica.
func (n nodes) farewell(ctx context.Context, say swarm.Progress) error {
	if err := n.empty(ctx, say); err != nil {
		return err
	}
	if err := n.remember(ctx, n.Node, leaveTimeout); err != nil {
		return err
	}
	say("removing the node object of %s", n.Node)
	if err := n.strikeOut(ctx, n.Node); err != nil {
		return err
	}
	say("leaving the replicated state")
	if err := n.Store.Leave(ctx); err != nil && !errors.Is(err, state.ErrOnlyReplica) {
		return unavailable(err)
	}
	return nil
}

// empty has this node's pods end here, so that their replacements never run beside them.
func (n nodes) empty(ctx context.Context, say swarm.Progress) error {
	patch := []byte(`{"spec":{"unschedulable":true}}`)
	if _, err := n.Client.CoreV1().Nodes().Patch(ctx, n.Node, types.MergePatchType, patch, metav1.PatchOptions{}); err != nil {
		return fmt.Errorf("cordon node %s: %w", n.Node, err)
	}
	ctx, cancel := context.WithTimeout(ctx, emptyTimeout)
	defer cancel()
	pods := metav1.ListOptions{FieldSelector: fields.OneTermEqualSelector("spec.nodeName", n.Node).String()}
	told := map[types.UID]bool{}
	for {
		list, err := n.Client.CoreV1().Pods(metav1.NamespaceAll).List(ctx, pods)
		if err != nil {
			return fmt.Errorf("list pods of node %s: %w", n.Node, err)
		}
		left := 0
		for i := range list.Items {
			p := &list.Items[i]
			if daemon(p) { // made again until the Node object is gone, which ends them too
				continue
			}
			left++
			if told[p.UID] || p.DeletionTimestamp != nil {
				continue
			}
			told[p.UID] = true
			if err := n.Client.CoreV1().Pods(p.Namespace).Delete(ctx, p.Name, metav1.DeleteOptions{}); err != nil && !apierrors.IsNotFound(err) {
				return fmt.Errorf("delete pod %s/%s: %w", p.Namespace, p.Name, err)
			}
		}
		if left == 0 {
			return nil
		}
		say("%d pods of this node end", left)
		select {
		case <-ctx.Done():
			return fmt.Errorf("%d pods did not end within %s: look at them with psctl get pods -A -o wide, or say --force", left, emptyTimeout)
		case <-time.After(emptyPoll):
		}
	}
}

func daemon(p *corev1.Pod) bool {
	owner := metav1.GetControllerOf(p)
	return owner != nil && owner.Kind == "DaemonSet"
}
