package operate

import (
	"context"
	"errors"
	"fmt"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/apimachinery/pkg/types"

	"github.com/podman-swarm/podman-swarm/internal/gossip"
	"github.com/podman-swarm/podman-swarm/internal/state"
	"github.com/podman-swarm/podman-swarm/internal/swarm"
)

const (
	// leaveTimeout bounds what a leaving node waits for the others, emptyTimeout what of that for its pods,
	// stepTimeout what of the rest for each thing that it tells them.
	leaveTimeout = 90 * time.Second
	emptyTimeout = 45 * time.Second
	stepTimeout  = 12 * time.Second
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
	if err := n.farewell(ctx, req.Force, say); err != nil {
		return err
	}
	say("leaving the gossip")
	if err := n.Peers.Gossip.Leave(ctx); err != nil {
		if !req.Force {
			return err
		}
		say("going on although %v", err)
	}
	return n.Left()
}

// farewell tells the others: the pods go elsewhere, and nobody waits for this replica. With force it
// does everything that can be done, and says what could not.
func (n nodes) farewell(ctx context.Context, force bool, say swarm.Progress) error {
	ignored := func(err error) bool {
		if err != nil && force {
			say("going on although %v", err)
		}
		return err == nil || force
	}
	uncordon, err := n.cordon(ctx)
	if !ignored(err) {
		return err
	}
	if err := n.empty(ctx, say); !ignored(err) {
		return uncordon(ctx, err)
	}
	if err := n.step(ctx, func(ctx context.Context) error { return n.remember(ctx, n.Node, leaveTimeout) }); !ignored(err) {
		return uncordon(ctx, err)
	}
	say("removing the node object of %s", n.Node)
	if err := n.step(ctx, func(ctx context.Context) error { return n.strikeOut(ctx, n.Node) }); !ignored(err) {
		return n.halfLeft(err)
	}
	say("leaving the replicated state")
	if err := n.step(ctx, n.Store.Leave); !errors.Is(err, state.ErrOnlyReplica) && !ignored(unavailable(err)) {
		return n.halfLeft(unavailable(err))
	}
	return nil
}

// step bounds one of several things, so that time is left for the next.
func (n nodes) step(ctx context.Context, do func(context.Context) error) error {
	ctx, cancel := context.WithTimeout(ctx, stepTimeout)
	defer cancel()
	return do(ctx)
}

func (n nodes) halfLeft(err error) error {
	return fmt.Errorf("%w. Node %s has left in part, and the others refuse it soon: run podman-swarm leave again, or with --force", err, n.Node)
}

// cordon keeps new pods away from this node. What it returns takes that back when leaving fails with
// an error, and adds to the error whether it could.
func (n nodes) cordon(ctx context.Context) (uncordon func(context.Context, error) error, err error) {
	set := func(ctx context.Context, unschedulable bool) error {
		return n.step(ctx, func(ctx context.Context) error {
			patch := fmt.Appendf(nil, `{"spec":{"unschedulable":%t}}`, unschedulable)
			_, err := n.Client.CoreV1().Nodes().Patch(ctx, n.Node, types.MergePatchType, patch, metav1.PatchOptions{})
			if apierrors.IsNotFound(err) { // an earlier try to leave came so far
				return nil
			}
			return err
		})
	}
	uncordon = func(_ context.Context, err error) error { return err } // somebody else had cordoned it
	node, err := n.Client.CoreV1().Nodes().Get(ctx, n.Node, metav1.GetOptions{})
	if err == nil && !node.Spec.Unschedulable {
		uncordon = func(ctx context.Context, err error) error {
			if set(ctx, false) != nil {
				return fmt.Errorf("%w. Node %s takes no new pods: psctl node uncordon %s", err, n.Node, n.Node)
			}
			return fmt.Errorf("%w. Node %s has not left and takes new pods again", err, n.Node)
		}
	}
	if err := set(ctx, true); err != nil {
		return uncordon, fmt.Errorf("cordon node %s: %w", n.Node, err)
	}
	return uncordon, nil
}

// empty has this node's pods end here, so that their replacements never run beside them.
func (n nodes) empty(ctx context.Context, say swarm.Progress) error {
	ctx, cancel := context.WithTimeout(ctx, n.patience)
	defer cancel()
	told := map[types.UID]bool{}
	for said := 0; ; {
		left, err := n.end(ctx, told)
		switch {
		case err != nil:
			return err
		case left == 0:
			return nil
		case left != said:
			say("%d pods of this node end", left)
			said = left
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("%d pods did not end within %s: look at them with psctl get pods -A -o wide, or say --force", left, n.patience)
		case <-time.After(emptyPoll):
		}
	}
}

// end asks pods of this node to end that were not told to yet, and counts those that are left.
func (n nodes) end(ctx context.Context, told map[types.UID]bool) (left int, err error) {
	pods := metav1.ListOptions{FieldSelector: fields.OneTermEqualSelector("spec.nodeName", n.Node).String()}
	list, err := n.Client.CoreV1().Pods(metav1.NamespaceAll).List(ctx, pods)
	if err != nil {
		return 0, fmt.Errorf("list pods of node %s: %w", n.Node, err)
	}
	var failed error
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
			failed = fmt.Errorf("delete pod %s/%s: %w", p.Namespace, p.Name, err)
		}
	}
	return left, failed
}

func daemon(p *corev1.Pod) bool {
	owner := metav1.GetControllerOf(p)
	return owner != nil && owner.Kind == "DaemonSet"
}
