package engine

import (
	"context"
	"time"

	"github.com/hashicorp/raft"

	"github.com/podman-swarm/podman-swarm/internal/state/machine"
)

// settleAgain is how long settle waits after a refusal.
const settleAgain = 50 * time.Millisecond

// settle commits an entry in the new leader's term, and tells the followers of it and all before. Raft
// refuses the entry as long as the hand-over of an earlier term has not come to its end, which waits for
// the answer of one that may be dead: tried only once, this replica would be a leader that never serves.
func (in *Engine) settle() {
	term := in.Raft.CurrentTerm()
	for in.empty(context.Background()) != nil { //nolint:forbidigo // ends with the instance
		if in.Raft.State() != raft.Leader || in.Raft.CurrentTerm() != term {
			return // leadership went; whoever has it next settles
		}
		again := time.NewTimer(settleAgain)
		select {
		case <-again.C:
		case <-in.stopped:
			again.Stop()
			return
		}
	}
	if in.Raft.CurrentTerm() != term {
		return // the entry is of a later term, which has a settle of its own
	}
	for old := in.ready.Load(); old < term && !in.ready.CompareAndSwap(old, term); old = in.ready.Load() {
	}
	in.Broadcast()
	in.Tell()
}

// Leads reports whether this replica is the leader and knows everything that was committed.
func (in *Engine) Leads() bool {
	return in.Raft.State() == raft.Leader && in.ready.Load() == in.Raft.CurrentTerm()
}

// WaitLeader waits until this replica leads.
func (in *Engine) WaitLeader(ctx context.Context) error {
	for {
		changed := in.Change()
		if in.Leads() {
			return nil
		}
		select {
		case <-changed:
		case <-in.stopped:
			return machine.ErrClosed
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}
