package engine

import (
	"errors"
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
	// Entries for a replica that cannot be reached are tried again every knockAgain, for knock. Raft itself
	// waits longer after every failure, 10 s after a dozen, and a replica that is back would wait with it.
	knock      = 5 * time.Second
	knockAgain = 100 * time.Millisecond
)

// paced is the transport of one engine. Raft sends as many heartbeats to those without a vote as to
// the voters, and two more whenever it is asked whether it leads; nobody needs them.
type paced struct {
	*raftnet.Transport
	members   func() raft.Configuration
	stopped   <-chan struct{}
	confirmed *confirmations // gets the answers
	stall     *stall
}

// AppendEntriesPipeline implements raft.Transport.
func (p paced) AppendEntriesPipeline(id raft.ServerID, target raft.ServerAddress) (raft.AppendPipeline, error) {
	inner, err := p.Transport.AppendEntriesPipeline(id, target)
	if err != nil {
		return nil, err
	}
	return silent{inner, p.stall}, nil
}

// AppendEntries implements raft.Transport. Raft sends the heartbeats of one peer one after another.
func (p paced) AppendEntries(id raft.ServerID, target raft.ServerAddress, args *raft.AppendEntriesRequest, resp *raft.AppendEntriesResponse) error {
	beats := heartbeat(args)
	if beats && voteless(p.members(), id) && !p.pause(pace) {
		return raft.ErrRaftShutdown
	}
	err := p.send(id, target, args, resp)
	for late := time.Now().Add(knock); err != nil && !errors.Is(err, errStalled) && !beats && time.Now().Before(late); {
		if !p.pause(knockAgain) {
			return raft.ErrRaftShutdown
		}
		err = p.send(id, target, args, resp)
	}
	return err
}

func (p paced) send(id raft.ServerID, target raft.ServerAddress, args *raft.AppendEntriesRequest, resp *raft.AppendEntriesResponse) error {
	if p.stall.on.Load() {
		return errStalled
	}
	sent := time.Now()
	err := p.Transport.AppendEntries(id, target, args, resp)
	if err == nil && resp.Term <= args.Term { // else it has seen another term
		p.confirmed.add(id, args.Term, sent)
	}
	return err
}

// pause lets time pass; false: the engine is about to be stopped.
func (p paced) pause(d time.Duration) bool {
	wait := time.NewTimer(d)
	defer wait.Stop()
	select {
	case <-wait.C:
		return true
	case <-p.stopped:
		return false
	}
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
