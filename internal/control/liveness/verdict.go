package liveness

import "time"

// FencedAnnotation on a Node, with the value "true", says that a person has made sure that the node
// is off: whatever ran there may run elsewhere at once. It ends when the node is back.
const FencedAnnotation = "podman-swarm.io/fenced"

// Rules say how long to wait before what. The zero value is of no use; see DefaultRules.
type Rules struct {
	// MinorityDelay is how long a side with less than half of the known nodes waits before it replaces
	// pods: it is more likely the one that is cut off.
	MinorityDelay time.Duration
	// ReplaceAfter is how long a node must have been dead before pods that must not run twice are
	// taken as ended. By then a node that was cut off has stopped them itself (package agent/fence).
	ReplaceAfter time.Duration
	// ReplacePerNode is added to it for every known node: a node that is cut off finds out by asking
	// the others one after another, more slowly since nobody confirms what it suspects.
	ReplacePerNode time.Duration
	// AbsentAfter is how long a Node may be unknown to gossip before it counts as dead: the time in
	// which a leader that has just started meets the others.
	AbsentAfter time.Duration
}

// Replaces is how long a node must have been dead before its pods that must not run twice are taken as ended.
func (r Rules) Replaces(known int) time.Duration {
	return r.ReplaceAfter + time.Duration(known)*r.ReplacePerNode
}

// DefaultRules are the cluster's; ADR 0010 has the sum.
func DefaultRules() Rules {
	return Rules{
		MinorityDelay: time.Minute, ReplaceAfter: 45 * time.Second, ReplacePerNode: 600 * time.Millisecond,
		AbsentAfter: 10 * time.Second,
	}
}

// A Census is what one side of the cluster sees of it. Known are the Node objects, without those that
// are dead and fenced: a person has said that they are on no other side.
type Census struct{ Known, Alive int }

// Half tells whether this side holds at least half of the known nodes.
func (c Census) Half() bool { return 2*c.Alive >= c.Known }

// Majority tells whether no other side can hold as many.
func (c Census) Majority() bool { return 2*c.Alive > c.Known }

// Sighting is what is known of one node.
type Sighting struct {
	Dead   bool
	Since  time.Time // of being dead
	Fenced bool      // a person said so
	// Sure is since when this side has had a majority; zero: as long as anybody knows. What it saw before
	// as a minority says nothing about when the others were cut off: they may have been the majority.
	Sure time.Time
}

// Verdict is what may be done about one node.
type Verdict struct {
	Sighting
	// Evict: its pods are to be replaced.
	Evict bool
	// Force: pods that must not run twice have ended for certain, and may be replaced.
	Force bool
	// Again is when time alone changes the verdict; zero: never.
	Again time.Time
}

// Judge compiles the verdict on a node.
func (r Rules) Judge(s Sighting, c Census, now time.Time) Verdict {
	v := Verdict{Sighting: s}
	if !s.Dead {
		return v
	}
	if s.Fenced {
		v.Evict, v.Force = true, true
		return v
	}
	evictAt := s.Since
	if !c.Half() {
		evictAt = s.Since.Add(r.MinorityDelay)
	}
	if v.Evict = !now.Before(evictAt); !v.Evict {
		v.Again = evictAt
	}
	// Two nodes never have a majority without each other: there it takes a person.
	if !c.Majority() {
		return v
	}
	since := s.Since
	if s.Sure.After(since) {
		since = s.Sure
	}
	forceAt := since.Add(r.Replaces(c.Known))
	if v.Force = !now.Before(forceAt); !v.Force && (v.Again.IsZero() || forceAt.Before(v.Again)) {
		v.Again = forceAt
	}
	return v
}
