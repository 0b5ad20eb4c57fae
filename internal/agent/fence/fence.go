package fence

import (
	"context"
	"log/slog"
	"sync"
	"time"
)

const (
	// CutAfter is how long a node sees no majority, or is not one with it again, before it stops what must not
	// run twice.
	CutAfter = 30 * time.Second
	// StopWithin bounds the grace of what it stops then: it must have ended when others replace it.
	StopWithin = 5 * time.Second
	// BackAfter is how long a majority must have been seen again before such pods are started again: the
	// time in which this node learns what the others have done with them.
	BackAfter = 10 * time.Second
	// unsettled is how often a node that is back asks whether its state has become the others'.
	unsettled = time.Second
)

// Sight is what a node sees of its cluster.
type Sight struct {
	// Known are the nodes there are, without those that are fenced; Alive are those of them that
	// answer, this one included: a member is alive until gossip calls it dead.
	Known, Alive int
	// Settled: this node's state is that of the cluster, with no other history waiting to be merged.
	Settled bool
	// Torn: another history is in sight. When the two are merged, a pod may be another one than before.
	Torn bool
	// Until is when the last pods of those whom a takeover left behind have ended; zero: there was none. With
	// more nodes than voters a side of few nodes may hold most of the votes: it makes and starts a pod before
	// its fence has noticed the cut, and the side of many, which takes over, has never heard of it.
	Until time.Time
}

// minority tells whether another side may hold as many nodes. Two nodes have no majority without each
// other, so there nothing moves but by a person's word, and nothing needs to stop.
func (s Sight) minority() bool { return s.Known >= 3 && 2*s.Alive <= s.Known }

// A Decision is what a node thinks of its place; the zero value is that of a node that has just
// started.
type Decision struct {
	met bool // it has been part of a majority
	cut bool // it is cut off
	// doubt: what it knows may not be what the others do. It has lost sight of the majority, or has a history
	// of its own, and was not back for long enough since.
	doubt bool
	// early: those whom a takeover left behind may run what this node would start.
	early bool
	lost  time.Time // when it lost sight of the majority; zero: it sees it, and is one with it
	back  time.Time // when it saw the majority again while cut or in doubt
}

// Cut tells whether pods that must not run twice are to be stopped.
func (d Decision) Cut() bool { return d.cut }

// Hold tells whether such pods must not be started: the node is cut off, or may be, or has not met the
// others since it started. A pod that is new may have been made on both sides.
func (d Decision) Hold() bool { return d.cut || !d.met || d.doubt || d.early }

// Next takes in what is seen now, and says when to look again without news; zero: never.
func (d Decision) Next(s Sight, now time.Time) (next Decision, again time.Time) {
	d.early = false // it says nothing of this node's place
	next, again = d.place(s, now)
	if next.early = now.Before(s.Until); next.early && (again.IsZero() || s.Until.Before(again)) {
		again = s.Until
	}
	return next, again
}

// place is Next, for where this node stands.
func (d Decision) place(s Sight, now time.Time) (next Decision, again time.Time) {
	if s.minority() {
		d.back, d.doubt = time.Time{}, d.doubt || d.met
		if d.lost.IsZero() {
			d.lost = now
		}
		if at := d.lost.Add(CutAfter); now.Before(at) && !d.cut {
			return d, at
		}
		d.cut = true
		return d, time.Time{}
	}
	d.doubt = d.doubt || s.Torn
	if !s.Settled && d.Hold() {
		// Seen again, but not one with the others: they may not see this node, and count since they lost it.
		d.back, again = time.Time{}, now.Add(unsettled)
		if at := d.lost.Add(CutAfter); !d.lost.IsZero() && !d.cut {
			d.cut = !now.Before(at)
			if !d.cut && at.Before(again) {
				again = at
			}
		}
		return d, again
	}
	d.lost = time.Time{}
	switch {
	case !d.cut && !d.doubt:
		d.met = true
		return d, time.Time{}
	case d.back.IsZero():
		d.back = now
	}
	if at := d.back.Add(BackAfter); now.Before(at) {
		return d, at
	}
	return Decision{met: true}, time.Time{}
}

// Config is what a Fence needs.
type Config struct {
	Sight func() Sight
	// Seen returns a channel that is closed when Sight may have changed: take it before looking.
	Seen func() <-chan struct{}
	Now  func() time.Time
	// File keeps since when the node sees no majority: containers outlive the agent, and the others count on
	// while it is restarted. It must not survive a boot of the machine, as they do not. "": it is not kept.
	File string
	Log  *slog.Logger
}

// Fence keeps a Decision up to date.
type Fence struct {
	cfg Config

	mu       sync.Mutex
	decision Decision
	changed  chan struct{}
}

// New returns a Fence that holds until Run has looked.
func New(cfg Config) *Fence {
	lost, err := recall(cfg.File, cfg.Now())
	if err != nil { // it counts from now
		cfg.Log.Warn("the fence has no memory", "err", err)
	}
	return &Fence{cfg: cfg, decision: Decision{lost: lost}, changed: make(chan struct{})}
}

// Cut is the decision's.
func (f *Fence) Cut() bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.decision.Cut()
}

// Hold is the decision's.
func (f *Fence) Hold() bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.decision.Hold()
}

// Changed returns a channel that is closed when Cut or Hold changes.
func (f *Fence) Changed() <-chan struct{} {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.changed
}

// Run decides until ctx ends.
func (f *Fence) Run(ctx context.Context) error {
	for {
		seen := f.cfg.Seen()
		now := f.cfg.Now()
		again := f.look(now)
		var timer <-chan time.Time
		stop := func() bool { return true }
		if !again.IsZero() {
			t := time.NewTimer(max(again.Sub(now), 0))
			timer, stop = t.C, t.Stop
		}
		select {
		case <-seen:
		case <-timer:
		case <-ctx.Done():
			stop()
			return ctx.Err()
		}
		stop()
	}
}

func (f *Fence) look(now time.Time) time.Time {
	sight := f.cfg.Sight()
	f.mu.Lock()
	defer f.mu.Unlock()
	was := f.decision
	next, again := was.Next(sight, now)
	f.decision = next
	if !was.lost.Equal(next.lost) {
		if err := keep(f.cfg.File, next.lost); err != nil {
			f.cfg.Log.Warn("the fence has no memory", "err", err)
		}
	}
	if was.Cut() != next.Cut() || was.Hold() != next.Hold() {
		close(f.changed)
		f.changed = make(chan struct{})
	}
	return again
}
