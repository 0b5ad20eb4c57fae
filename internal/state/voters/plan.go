package voters

import (
	"cmp"
	"slices"
	"time"

	"github.com/hashicorp/raft"

	"github.com/podman-swarm/podman-swarm/internal/state/lineage"
)

// Policy is what to aim at.
type Policy struct {
	Max         int           // voters
	DeadFor     time.Duration // how long a voter is missing before it is removed
	ForgetAfter time.Duration // the same for a replica without a vote, which costs little
	MaxLag      uint64        // how many log entries a replica may be behind to get a vote
}

// Default is the policy of the product.
func Default() Policy {
	return Policy{Max: 5, DeadFor: 3 * time.Second, ForgetAfter: 10 * time.Minute, MaxLag: 1000}
}

// retry is when to ask again for replicas that have to catch up first.
const retry = 250 * time.Millisecond

// Op is a kind of change.
type Op string

// The changes there are.
const (
	Add     Op = "add"     // or move: a replica without a vote, at an address
	Promote Op = "promote" // or move: one with a vote
	Demote  Op = "demote"
	Remove  Op = "remove"
)

// Change is one step.
type Change struct {
	Op      Op
	ID      raft.ServerID
	Address raft.ServerAddress
}

// changeTimeout bounds how long Raft may take to begin a change.
const changeTimeout = 5 * time.Second

// Begin asks Raft, which leads, for the change.
func (c Change) Begin(r *raft.Raft) raft.Future {
	switch c.Op {
	case Add:
		return r.AddNonvoter(c.ID, c.Address, 0, changeTimeout)
	case Promote:
		return r.AddVoter(c.ID, c.Address, 0, changeTimeout)
	case Demote:
		return r.DemoteVoter(c.ID, 0, changeTimeout)
	case Remove:
	}
	return r.RemoveServer(c.ID, 0, changeTimeout)
}

// View is what the leader knows.
type View struct {
	Config raft.Configuration
	Self   raft.Server
	// Alive are the live replicas of this lineage, the leader among them or not.
	Alive []raft.Server
	// Missing says since when servers of the configuration are not alive; see Missing.
	Missing map[raft.ServerID]time.Time
	// Lag is how many entries a replica is behind; false: it does not say. It may be slow.
	Lag func(raft.ServerID) (uint64, bool)
}

// Missing carries forward since when servers are missing.
func Missing(before map[raft.ServerID]time.Time, c raft.Configuration, alive []raft.Server, now time.Time) map[raft.ServerID]time.Time {
	out := map[raft.ServerID]time.Time{}
	for _, s := range c.Servers {
		if slices.ContainsFunc(alive, func(a raft.Server) bool { return a.ID == s.ID }) {
			continue
		}
		if since, ok := before[s.ID]; ok {
			out[s.ID] = since
		} else {
			out[s.ID] = now
		}
	}
	return out
}

// plan is one call of Plan.
type plan struct {
	View
	Policy
	now    time.Time
	voters []raft.Server
	alive  int // voters
	again  time.Duration
}

// Plan returns the next change, nil when there is none, and when to ask again although nothing
// that is known has changed; 0: never.
func Plan(v View, p Policy, now time.Time) (*Change, time.Duration) {
	x := &plan{View: v, Policy: p, now: now}
	for _, s := range v.Config.Servers {
		if s.Suffrage == raft.Voter {
			x.voters = append(x.voters, s)
			if _, missing := v.Missing[s.ID]; !missing || s.ID == v.Self.ID {
				x.alive++
			}
		}
	}
	for _, step := range []func() *Change{x.moveSelf, x.removeVoter, x.removeOther, x.demote, x.add, x.promote} {
		if c := step(); c != nil {
			return c, 0
		}
	}
	return nil, x.again
}

// soon makes Plan be asked again.
func (x *plan) soon(d time.Duration) {
	if x.again == 0 || d < x.again {
		x.again = d
	}
}

// moveSelf corrects the leader's own address: it was the only replica, or has moved.
func (x *plan) moveSelf() *Change {
	for _, s := range x.voters {
		if s.ID == x.Self.ID && s.Address != x.Self.Address {
			return &Change{Promote, s.ID, x.Self.Address}
		}
	}
	return nil
}

// gone reports whether a server is not coming back: its node is alive under a new name, or it is
// missing for long enough.
func (x *plan) gone(s raft.Server, after time.Duration) bool {
	since, missing := x.Missing[s.ID]
	if !missing || s.ID == x.Self.ID {
		return false
	}
	node := lineage.NodePart(string(s.ID))
	if slices.ContainsFunc(x.Alive, func(a raft.Server) bool { return lineage.NodePart(string(a.ID)) == node }) {
		return true
	}
	left := after - x.now.Sub(since)
	if left > 0 {
		x.soon(left)
	}
	return left <= 0
}

// removeVoter takes a dead voter out, which needs no help of the dead, as long as most voters live.
func (x *plan) removeVoter() *Change {
	for _, s := range x.voters {
		if x.gone(s, x.DeadFor) && x.alive > len(x.voters)/2 {
			return &Change{Remove, s.ID, ""}
		}
	}
	return nil
}

func (x *plan) removeOther() *Change {
	for _, s := range x.Config.Servers {
		if s.Suffrage != raft.Voter && x.gone(s, x.ForgetAfter) {
			return &Change{Remove, s.ID, ""}
		}
	}
	return nil
}

func (x *plan) demote() *Change {
	if len(x.voters) <= x.Max {
		return nil
	}
	for _, s := range slices.Backward(x.voters) {
		if s.ID != x.Self.ID {
			return &Change{Demote, s.ID, ""}
		}
	}
	return nil
}

// add brings in live replicas that are not in the configuration and follows those that moved.
func (x *plan) add() *Change {
	for _, a := range x.sorted() {
		i := slices.IndexFunc(x.Config.Servers, func(s raft.Server) bool { return s.ID == a.ID })
		switch {
		case a.ID == x.Self.ID:
		case i < 0, x.Config.Servers[i].Suffrage != raft.Voter && x.Config.Servers[i].Address != a.Address:
			return &Change{Add, a.ID, a.Address}
		case x.Config.Servers[i].Address != a.Address:
			return &Change{Promote, a.ID, a.Address}
		}
	}
	return nil
}

// promote gives a vote to a live replica that has caught up. Two voters are better than one, since
// both hold what is acknowledged; beyond that an even number only makes the majority larger.
func (x *plan) promote() *Change {
	n := len(x.voters)
	var candidates []raft.Server
	for _, a := range x.sorted() {
		if !slices.ContainsFunc(x.voters, func(s raft.Server) bool { return s.ID == a.ID }) {
			candidates = append(candidates, a)
		}
	}
	if x.alive < n || n >= x.Max || n >= 3 && n%2 == 1 && len(candidates) < 2 {
		return nil
	}
	for _, c := range candidates {
		if lag, ok := x.Lag(c.ID); ok && lag <= x.MaxLag {
			return &Change{Promote, c.ID, c.Address}
		}
		x.soon(retry)
	}
	return nil
}

func (x *plan) sorted() []raft.Server {
	return slices.SortedFunc(slices.Values(x.Alive), func(a, b raft.Server) int { return cmp.Compare(a.ID, b.ID) })
}
