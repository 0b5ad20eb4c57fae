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
	// All that was committed before is applied now. Who could not read it must not lead; see Unfit.
	if in.Machine.Stuck() != nil {
		in.Broadcast()
		return
	}
	for old := in.ready.Load(); old < term && !in.ready.CompareAndSwap(old, term); old = in.ready.Load() {
	}
	in.Broadcast()
	in.Tell()
}

// Leads reports whether this replica is the leader, knows everything that was committed, and has a disk that answers.
func (in *Engine) Leads() bool {
	return !in.Stalled() && in.Raft.State() == raft.Leader && in.ready.Load() == in.Raft.CurrentTerm()
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

// Unfit is why Raft leads here, but this replica does not: there is an entry that it cannot read; nil: it
// does, or others do.
func (in *Engine) Unfit() error {
	if in.Raft.State() != raft.Leader {
		return nil
	}
	return in.Machine.Stuck()
}

// HandOver gives leadership to the voter that was heard last, if there is one that was heard lately. Raft
// chooses by the log alone: a dead voter too, for which it waits.
func (in *Engine) HandOver(ctx context.Context) error {
	heirs := in.heirs()
	if len(heirs) == 0 {
		return nil
	}
	return in.handOver(ctx, heirs[0])
}

// drain bounds how long a hand-over waits for the writes that are under way. A voter that is slow, or a message
// that is lost, takes a part of it; without a majority it is in vain.
const drain = Heartbeat

// handOver lets no write begin and those under way come to their end, before leadership goes: what is not
// committed by then would be in doubt, though it is not lost.
func (in *Engine) handOver(ctx context.Context, to raft.Server) error {
	in.handing.Add(1)
	defer in.handing.Add(-1)
	enough := time.NewTimer(drain)
	defer enough.Stop()
	for waiting := true; waiting && in.writing.Load() > 0; {
		select {
		case <-in.calm:
		case <-enough.C:
			waiting = false
		case <-in.stopped:
			return raft.ErrRaftShutdown
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	return in.Await(ctx, func() raft.Future { return in.Raft.LeadershipTransferToServer(to.ID, to.Address) })
}

// heirs are those that could lead instead of this replica, which does; the best first.
func (in *Engine) heirs() []raft.Server {
	term := in.Raft.CurrentTerm()
	if in.Raft.State() != raft.Leader {
		return nil
	}
	return in.confirmed.heirs(in.Members(), in.Self, term, time.Now().Add(-lease))
}

// yieldAgain is when to look again after nobody was fit to lead.
const yieldAgain = 2 * time.Second

// Yield gives leadership to a voter that is fit to lead, because this replica is not, and reports whether
// that is done, or is being done. It is not done again within a time.
func (in *Engine) Yield(ctx context.Context, within time.Duration, fit func(context.Context, raft.ServerID) bool) bool {
	if !in.yielding.TryLock() {
		return true
	}
	defer in.yielding.Unlock()
	if time.Now().Before(in.stay) {
		return false
	}
	in.stay = time.Now().Add(yieldAgain)
	for _, heir := range in.heirs() {
		if fit(ctx, heir.ID) && in.handOver(ctx, heir) == nil {
			in.stay = time.Now().Add(within)
			return true
		}
	}
	return false
}
