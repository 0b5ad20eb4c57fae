package agent

import (
	"context"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/podman-swarm/podman-swarm/internal/agent/worker"
)

// Fence says what a node that may be cut off must not do; *fence.Fence is one.
type Fence interface {
	worker.Fence
	// Changed returns a channel that is closed when Cut or Hold changes.
	Changed() <-chan struct{}
}

// Predecessors know the pods that a merge replaced by others while they may still run.
type Predecessors interface {
	// Wait tells why a pod must not be started yet, for a user; empty: it may be. runs tells whether anything
	// of a pod of this node may run.
	Wait(pod *corev1.Pod, runs func(uid types.UID) bool) string
	// Tell says of those of this node that do not run that they have ended. After an error it is to be
	// called again.
	Tell(ctx context.Context, runs func(uid types.UID) bool) error
	// Changed returns a channel that is closed when there may be something else to say: take it before.
	Changed() <-chan struct{}
}

// untold is how long to wait after Tell failed.
const untold = time.Second

// watchPredecessors has every pod looked at again that may have waited for another's end, and says what
// has ended here, until ctx does.
func (a *Agent) watchPredecessors(ctx context.Context) error {
	for a.cfg.Predecessors != nil {
		changed := a.cfg.Predecessors.Changed()
		a.pokeWaiting()
		try, cancel := context.WithTimeout(ctx, callTimeout)
		err := a.cfg.Predecessors.Tell(try, a.runs)
		cancel()
		var again <-chan time.Time
		stop := func() bool { return true }
		if err != nil && ctx.Err() == nil {
			a.cfg.Log.Debug("say which pods have ended", "err", err)
			timer := time.NewTimer(untold)
			again, stop = timer.C, timer.Stop
		}
		select {
		case <-changed:
		case <-a.ended:
		case <-again:
		case <-ctx.Done():
			stop()
			return ctx.Err()
		}
		stop()
	}
	return nil
}

// runs tells whether anything of a pod may run here. As long as there is a worker it may: it may be about
// to start something.
func (a *Agent) runs(uid types.UID) bool {
	a.mu.Lock()
	known := a.life != nil && a.workers[uid] == nil
	a.mu.Unlock()
	return !known || len(a.host.Ledger.Of(uid)) > 0
}

// nudge has watchPredecessors look again: a worker has ended, or the first ones have begun.
func (a *Agent) nudge() {
	select {
	case a.ended <- struct{}{}:
	default:
	}
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
		a.reconsiderAll()
		select {
		case <-changed:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	return nil
}
