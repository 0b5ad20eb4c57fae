package lineage

import (
	"cmp"
	"slices"
	"time"

	"github.com/podman-swarm/podman-swarm/internal/hlc"
)

const (
	// Patience is how long a lineage may be without leader before its survivors give it up. An
	// election takes a second, gossip knows of the dead after four.
	Patience = 5 * time.Second
	// stuck is how long a lineage may be without leader although a majority is alive.
	stuck = 15 * time.Second
	// settle is how long a winner must be the same one before anybody moves.
	settle = time.Second
)

// Action is what a replica is to do.
type Action int

const (
	// Stay is to do nothing.
	Stay Action = iota
	// TakeOver is to begin a new lineage, if this replica is the most advanced of those alive.
	TakeOver
	// Rejoin is to hand over to the winner and to follow it.
	Rejoin
	// Retreat is to go back to the lineage this replica came from, the new one was lost on the way.
	Retreat
)

// View is what one replica knows.
type View struct {
	Self   Peer
	Peers  []Peer   // alive ones; self may be among them
	Voters []string // the servers that have a vote; nil: not known, because this replica is new
	Member bool     // this replica is in the configuration, so it holds all that came before
	Led    bool     // Raft knows a leader
	// Moving says that this replica came from another lineage and has not caught up yet.
	Moving bool
	Freeze bool // never take over
}

// Verdict is what to do, and when to ask again even if nothing changes; 0: never.
type Verdict struct {
	Do     Action
	Winner string // Rejoin: the lineage
	Leader Peer   // Rejoin: who leads it
	Again  time.Duration
}

// Judge remembers since when things are as they are. The zero value is ready. One goroutine at a
// time may use it.
type Judge struct {
	lost   map[string]time.Time // lineages without a leader, since when that is seen
	unled  time.Time            // since when Raft knows no leader; zero: it does
	own    string
	winner string
	since  time.Time
}

// group is the live members of a lineage.
type group struct {
	id      string
	born    hlc.Stamp
	members []Peer
	leader  *Peer
}

// Decide comes to a verdict.
func (j *Judge) Decide(v View, now time.Time) Verdict {
	groups := sort(v)
	j.observe(v, groups, now)
	own := groups[v.Self.Standing.Lineage]
	winner := j.best(v, groups, now)
	if winner == nil || winner.id != j.winner {
		j.winner, j.since = "", now
		if winner != nil {
			j.winner = winner.id
		}
	}
	other := winner != nil && winner != own
	switch leaderless := now.Sub(j.unled); {
	case other && winner.leader == nil:
		return Verdict{Again: time.Second} // it elects one, or ceases to compete
	case other && now.Sub(j.since) < settle:
		return Verdict{Again: settle - now.Sub(j.since)}
	case other && v.Moving:
		return Verdict{Do: Retreat}
	case other:
		return Verdict{Do: Rejoin, Winner: winner.id, Leader: *winner.leader, Again: time.Second}
	case v.Led:
		return Verdict{Again: j.pending(groups)}
	case own.leader != nil: // it has not reached this replica yet, or its end is not known yet
		return Verdict{Again: time.Second}
	case leaderless < Patience:
		return Verdict{Again: min(Patience-leaderless, time.Second)}
	case v.Moving:
		return Verdict{Do: Retreat}
	case v.Freeze || !v.Member || majority(v.Voters, own):
		return Verdict{Again: time.Second}
	}
	return Verdict{Do: TakeOver, Again: time.Second}
}

// pending is how long to wait while several lineages are about: their leadership may be news.
func (j *Judge) pending(groups map[string]*group) time.Duration {
	if len(groups) > 1 {
		return time.Second
	}
	return 0
}

func sort(v View) map[string]*group {
	groups := map[string]*group{}
	add := func(p Peer) {
		s := p.Standing
		g := groups[s.Lineage]
		if g == nil {
			g = &group{id: s.Lineage}
			groups[s.Lineage] = g
		}
		if g.born == 0 {
			g.born = s.Born
		}
		g.members = append(g.members, p)
		if s.Leader {
			g.leader = &p
		}
	}
	add(v.Self)
	for _, p := range v.Peers {
		if p.Name != v.Self.Name && p.Standing.Lineage != "" && p.Standing.Server != "" {
			add(p)
		}
	}
	return groups
}

func (j *Judge) observe(v View, groups map[string]*group, now time.Time) {
	lost := map[string]time.Time{}
	for id, g := range groups {
		if g.leader != nil {
			continue
		}
		lost[id] = now
		if since, ok := j.lost[id]; ok {
			lost[id] = since
		}
	}
	j.lost = lost
	own := v.Self.Standing.Lineage
	switch {
	case v.Led:
		j.unled = time.Time{}
	case j.unled.IsZero() || own != j.own:
		j.unled = now
	}
	j.own = own
}

// best is the lineage that all others are to join: of those that have a leader, or had one a moment
// ago, the one with most live members, then the oldest.
func (j *Judge) best(v View, groups map[string]*group, now time.Time) *group {
	var best *group
	for id, g := range groups {
		competes := g.leader != nil || now.Sub(j.lost[id]) < Patience
		if id == v.Self.Standing.Lineage {
			competes = v.Led || g.leader != nil || majority(v.Voters, g) && now.Sub(j.unled) < stuck
		}
		if competes && (best == nil || order(g, best) < 0) {
			best = g
		}
	}
	return best
}

func order(a, b *group) int {
	return cmp.Or(cmp.Compare(len(b.members), len(a.members)), cmp.Compare(a.born, b.born), cmp.Compare(a.id, b.id))
}

// majority reports whether most of the voters are alive in a lineage.
func majority(voters []string, g *group) bool {
	alive := 0
	for _, id := range voters {
		if slices.ContainsFunc(g.members, func(p Peer) bool { return p.Standing.Server == id }) {
			alive++
		}
	}
	return alive > len(voters)/2
}

// Position is how far a replica's log reaches.
type Position struct {
	Name        string // of its node
	Term, Index uint64
}

// Ahead reports whether a replica is the most advanced: the one whose log holds every write that
// any of them can know to be acknowledged. Equal ones are told apart by name.
func Ahead(self Position, others []Position) bool {
	for _, o := range others {
		if cmp.Or(cmp.Compare(o.Term, self.Term), cmp.Compare(o.Index, self.Index), cmp.Compare(self.Name, o.Name)) > 0 {
			return false
		}
	}
	return true
}

// Best is the leader of the lineage that a replica without state is to join: of the peers but itself.
func Best(peers []Peer, self string) (Peer, bool) {
	var best *group
	v := View{Self: Peer{Name: self}, Peers: peers}
	for _, g := range sort(v) {
		if g.id != "" && g.leader != nil && (best == nil || order(g, best) < 0) {
			best = g
		}
	}
	if best == nil {
		return Peer{}, false
	}
	return *best.leader, true
}
