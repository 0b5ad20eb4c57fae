package swarm

import "fmt"

// Majority is how many voters must acknowledge a write.
func (q Quorum) Majority() int { return q.Voters/2 + 1 }

// Writable tells whether writes are acknowledged now.
func (q Quorum) Writable() bool { return q.Leader && q.Voters > 0 && q.Alive >= q.Majority() }

// Words says how healthy the state is, what that means for writes, and what the next loss will do.
func (q Quorum) Words() string {
	answer := fmt.Sprintf("%d of %d voters answer", q.Alive, q.Voters)
	loss := "a takeover makes the survivors writable after about 5 s"
	if q.Freeze {
		loss = "writes wait for a majority (--on-quorum-loss=freeze)"
	}
	spare := q.Alive - q.Majority()
	switch {
	case q.Voters == 0:
		return "starting: no voter is known yet"
	case q.Alive < q.Majority() && q.Freeze:
		return "read-only: " + answer + "; writes wait for a majority (--on-quorum-loss=freeze)"
	case q.Alive < q.Majority():
		return "read-only: " + answer + "; a takeover makes this side writable within seconds"
	case !q.Leader:
		return "read-only: " + answer + "; a leader is being elected"
	case q.Voters == 1:
		return "writable: this is the only voter; let a second node join to survive its loss"
	case spare == 0 && q.Alive < q.Voters:
		return "degraded, writable: " + answer + "; at the next loss " + loss
	case spare == 0:
		return "healthy: " + answer + "; at the next loss " + loss
	case q.Alive < q.Voters:
		return fmt.Sprintf("degraded, writable: %s; %d more may fail at once", answer, spare)
	}
	return fmt.Sprintf("healthy: %s; any %d may fail at once", answer, spare)
}
