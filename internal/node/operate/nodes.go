package operate

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/podman-swarm/podman-swarm/internal/control/liveness"
	"github.com/podman-swarm/podman-swarm/internal/join"
	"github.com/podman-swarm/podman-swarm/internal/state"
	"github.com/podman-swarm/podman-swarm/internal/swarm"
)

// nodes changes who belongs to the swarm.
type nodes struct {
	Config
	// patience is how long pods may take to end before this node leaves.
	patience time.Duration
}

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

// strikeOut removes a node's object and record, each also when the other cannot be. What ran there runs
// elsewhere after that.
func (n nodes) strikeOut(ctx context.Context, name string) error {
	object := n.Client.CoreV1().Nodes().Delete(ctx, name, metav1.DeleteOptions{})
	_, err := n.Store.Apply(ctx, state.Write{Key: join.NodesPrefix + name, Delete: true, Expect: state.Any})
	if errors.Is(err, state.ErrConflict) { // there is none
		err = nil
	}
	switch {
	case err != nil:
		return unavailable(err)
	case object != nil && !apierrors.IsNotFound(object):
		return fmt.Errorf("delete node %s: %w", name, object)
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
