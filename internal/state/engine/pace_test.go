package engine

import (
	"fmt"
	"testing"
	"testing/synctest"
	"time"

	"github.com/hashicorp/raft"

	"github.com/podman-swarm/podman-swarm/internal/state/raftnet"
)

// sent is a transport that only counts.
type sent struct {
	raft.Transport
	n int
}

func (s *sent) AppendEntries(raft.ServerID, raft.ServerAddress, *raft.AppendEntriesRequest, *raft.AppendEntriesResponse) error {
	s.n++
	return nil
}

func servers(voters, others int) (c raft.Configuration) {
	for i := range voters {
		c.Servers = append(c.Servers, raft.Server{ID: raft.ServerID(fmt.Sprint("v", i))})
	}
	for i := range others {
		c.Servers = append(c.Servers, raft.Server{ID: raft.ServerID(fmt.Sprint("n", i)), Suffrage: raft.Nonvoter})
	}
	return c
}

// Only heartbeats to those without a vote wait, and only while there are voters enough.
func TestPace(t *testing.T) {
	beat := &raft.AppendEntriesRequest{Term: 2}
	for _, c := range []struct {
		what   string
		voters int
		to     raft.ServerID
		args   *raft.AppendEntriesRequest
		want   time.Duration
	}{
		{"a heartbeat to a voter", 5, "v4", beat, 0},
		{"a heartbeat to another", 5, "n0", beat, pace},
		{"with few voters", 4, "n0", beat, 0},
		{"an entry", 5, "n0", &raft.AppendEntriesRequest{Term: 2, Entries: []*raft.Log{{}}}, 0},
		{"the tick that tells a commit", 5, "n0", &raft.AppendEntriesRequest{Term: 2, LeaderCommitIndex: 1}, 0},
	} {
		t.Run(c.what, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				to := &sent{}
				p := paced{&raftnet.Transport{Transport: to}, func() raft.Configuration { return servers(c.voters, 2) }, nil, newConfirmations(), &stall{}}
				begin := time.Now()
				if err := p.AppendEntries(c.to, "", c.args, &raft.AppendEntriesResponse{}); err != nil {
					t.Fatal(err)
				}
				if took := time.Since(begin); took != c.want || to.n != 1 {
					t.Errorf("sent %d times after %v, want %v", to.n, took, c.want)
				}
			})
		})
	}
}

// Nobody waits for a heartbeat at the end.
func TestPaceEnds(t *testing.T) {
	stopped := make(chan struct{})
	close(stopped)
	to := &sent{}
	p := paced{&raftnet.Transport{Transport: to}, func() raft.Configuration { return servers(5, 1) }, stopped, newConfirmations(), &stall{}}
	if err := p.AppendEntries("n0", "", &raft.AppendEntriesRequest{Term: 2}, nil); err == nil || to.n != 0 {
		t.Errorf("sent %d times, err %v", to.n, err)
	}
}
