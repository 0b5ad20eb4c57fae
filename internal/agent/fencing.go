package agent

import (
	"context"

	"github.com/podman-swarm/podman-swarm/internal/agent/worker"
)

// Fence says what a node that may be cut off must not do; *fence.Fence is one.
type Fence interface {
	worker.Fence
	// Changed returns a channel that is closed when Cut or Hold changes.
	Changed() <-chan struct{}
}

// watchFence has every pod looked at again when the node's place in the cluster changes.
func (a *Agent) watchFence(ctx context.Context) error {
	cut := false
	for a.cfg.Fence != nil {
		changed := a.cfg.Fence.Changed()
		if now := a.cfg.Fence.Cut(); now != cut {
			cut = now
			a.cfg.Log.Warn("whether this node is cut off has changed: it does not run pods that must not run twice while it is", "cut", cut)
		}
		a.pokeAll()
		select {
		case <-changed:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	return nil
}
