package engine

import (
	"time"

	"github.com/hashicorp/raft"

	"github.com/podman-swarm/podman-swarm/internal/state/raftnet"
)

const (
	// pace is how much longer the leader waits between two heartbeats to a replica without a vote.
	// With what Raft waits itself and with the ticks of replication, none is without word for longer
	// than Heartbeat, so it believes in its leader, whatever the size of the swarm costs.
	pace = 200 * time.Millisecond
	// full is the number of voters from which on heartbeats are paced. With fewer, a replica that has
	// just got its vote might be needed for the lease before its next heartbeat.
	full = 5
)

// paced is the transport of one engine. Raft sends as many heartbeats to those without a vote as to
// the voters, and two more whenever it is asked whether it leads; nobody needs them.
type paced struct {
	*raftnet.Transport
	members   func() raft.Configuration
	stopped   <-chan struct{}
	confirmed *confirmations // gets the answers
}

// AppendEntries implements raft.Transport. Raft sends the heartbeats of one peer one after another.
func (p paced) AppendEntries(id raft.ServerID, target raft.ServerAddress, args *raft.AppendEntriesRequest, resp *raft.AppendEntriesResponse) error {
	if heartbeat(args) && voteless(p.members(), id) {
		wait := time.NewTimer(pace)
		defer wait.Stop()
		select {
		case <-wait.C:
		case <-p.stopped:
			return raft.ErrRaftShutdown
		}
	}
	sent := time.Now()
	err := p.Transport.AppendEntries(id, target, args, resp)
	if err == nil && resp.Term <= args.Term { // else it has seen another term
		p.confirmed.add(id, args.Term, sent)
	}
	return err
}

// heartbeat tells what Raft's own transport takes for one.
func heartbeat(a *raft.AppendEntriesRequest) bool {
	return a.PrevLogEntry == 0 && a.PrevLogTerm == 0 && len(a.Entries) == 0 && a.LeaderCommitIndex == 0
}

// voteless tells whether a server has no vote, and none that it could get is needed.
func voteless(c raft.Configuration, id raft.ServerID) bool {
	voters := 0
	for _, s := range c.Servers {
		if s.Suffrage != raft.Voter {
			continue
		}
		if voters++; s.ID == id {
			return false
		}
	}
	return voters >= full
}
