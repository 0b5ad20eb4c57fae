package machine

import (
	"errors"
	"fmt"

	"github.com/podman-swarm/podman-swarm/internal/hlc"
	"github.com/podman-swarm/podman-swarm/internal/state/ancestry"
)

// ErrExhausted says that no revision is left to jump to.
var ErrExhausted = errors.New("state: revisions are exhausted")

// Fork says how a new lineage begins. Whatever is random about it is decided by the caller.
type Fork struct {
	ID   string
	Born hlc.Stamp
	// Jump is how many steps of 2^16 revisions are left out, 1 to 2^24: a random number keeps
	// two forks of one history from counting alike. Small steps make that sixteen million to one,
	// and the longest jump still leaves room for 8,192 of them.
	Jump uint64
	// Shared is the point up to which all replicas of the lineage have the same history: what was
	// known to be committed. Zero: all of it.
	Shared Point
}

const (
	jumpStep = 1 << 16
	maxJump  = 1 << 24
	// maxRevision is what clients can hold that read numbers as floating point.
	maxRevision = 1<<53 - 1
)

// jump returns the revision that a history begins with after some steps.
func jump(rev, steps uint64) (uint64, error) {
	if to := (rev/jumpStep + 1 + steps) * jumpStep; to <= maxRevision {
		return to, nil
	}
	return 0, fmt.Errorf("%w: %d steps after revision %d", ErrExhausted, steps, rev)
}

// Fork turns the machine's history into that of a new lineage, which has the present one as its
// parent. Revisions jump, so that none names a state of both, and every watch gets ErrCompacted.
// Nothing has changed after an error.
func (f *Machine) Fork(o Fork) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	now := Point{Stamp: f.stamp, Revision: f.rev.Load()}
	if o.Shared == (Point{}) {
		o.Shared = now
	}
	switch {
	case o.ID == "" || len(o.ID) > ancestry.MaxID || o.ID == f.lineage.ID:
		return fmt.Errorf("fork: no name for a new lineage: %q", o.ID)
	case o.Jump < 1 || o.Jump > maxJump:
		return fmt.Errorf("fork: jump of %d steps, want 1 to %d", o.Jump, maxJump)
	case o.Shared.Revision > now.Revision:
		return fmt.Errorf("fork: revision %d is shared, the newest is %d", o.Shared.Revision, now.Revision)
	}
	rev, err := jump(now.Revision, o.Jump)
	if err != nil {
		return fmt.Errorf("fork: %w", err)
	}
	parents := append([]Ancestor{{ID: f.lineage.ID, Point: o.Shared}}, f.lineage.Parents...)
	f.lineage = Lineage{
		ID: o.ID, Born: o.Born, Merged: f.lineage.Merged,
		Parents: parents[:min(len(parents), ancestry.MaxAncestors)],
	}
	f.leap(rev)
	f.wakeWaiters()
	return nil
}

// leap continues at a later revision without events in between: whoever read the history up to
// here must begin anew. Called with the lock held.
func (f *Machine) leap(rev uint64) {
	f.rev.Store(rev)
	f.hist.reset(rev)
	f.views = viewCache{}
	f.current.Store(nil)
	f.watches.epoch++
	f.watches.wakeAll()
}

// Lineage returns the lineage of the machine's history.
func (f *Machine) Lineage() Lineage {
	f.mu.RLock()
	defer f.mu.RUnlock()
	return f.lineage
}

// Point returns the newest moment of the machine's history.
func (f *Machine) Point() Point {
	f.mu.RLock()
	defer f.mu.RUnlock()
	return Point{Stamp: f.stamp, Revision: f.rev.Load()}
}

// Retire tells everybody that another machine has taken this one's place: watches get
// ErrCompacted, whoever waits for a revision gets ErrRetired. Views can be read for ever.
func (f *Machine) Retire() {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.retired = true
	f.watches.epoch++
	f.watches.wakeAll()
	f.wakeWaiters()
}
