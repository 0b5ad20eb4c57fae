package engine

import (
	"context"

	"github.com/hashicorp/raft"
)

// Begin notes that a write is under way, Landed that it is through. Followers learn that an entry
// is committed with the next one, so when the last write of a burst is through, an empty one follows it. It is
// false while leadership is handed over: the next leader is to be asked.
func (in *Engine) Begin() bool {
	in.writing.Add(1)
	if in.handing.Load() > 0 {
		in.through()
		return false
	}
	return true
}

// Landed is the end of what Begin began.
func (in *Engine) Landed() {
	in.through()
	in.Tell()
}

func (in *Engine) through() {
	if in.writing.Add(-1) == 0 && in.handing.Load() > 0 {
		select {
		case in.calm <- struct{}{}:
		default:
		}
	}
}

// Tell has followers learn what is committed, unless a write that is under way will.
func (in *Engine) Tell() {
	if in.writing.Load() > 0 || !in.Followed() {
		return
	}
	select {
	case in.nudge <- struct{}{}:
	default:
	}
}

// teller proposes the empty entries that Tell asks for. Each is a hint: without it followers learn
// a moment later.
func (in *Engine) teller(ctx context.Context) {
	for {
		select {
		case <-in.stopped:
			return
		case <-in.nudge:
		}
		if in.Leads() {
			_ = in.empty(ctx)
		}
	}
}

// empty commits an entry that says nothing.
func (in *Engine) empty(ctx context.Context) error {
	return in.Await(ctx, func() raft.Future { return in.Raft.Barrier(0) })
}

// All is the first error of several futures, once all are answered.
type All []raft.Future

// Error implements raft.Future.
func (a All) Error() error {
	var first error
	for _, f := range a {
		if err := f.Error(); err != nil && first == nil {
			first = err
		}
	}
	return first
}
