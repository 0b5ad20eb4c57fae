package engine

import (
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"github.com/hashicorp/raft"

	"github.com/podman-swarm/podman-swarm/internal/state/raftnet"
)

// away is the transport to a replica that is away for a time.
type away struct {
	raft.Transport
	until time.Time
	tries int
}

func (a *away) AppendEntries(raft.ServerID, raft.ServerAddress, *raft.AppendEntriesRequest, *raft.AppendEntriesResponse) error {
	if a.tries++; time.Now().Before(a.until) {
		return errors.New("connection refused")
	}
	return nil
}

// Raft would come back to a replica as late as it waited for it last; heartbeats have a limit of their own.
func TestReplicaThatIsBackIsReachedAtOnce(t *testing.T) {
	entries, beat := &raft.AppendEntriesRequest{PrevLogEntry: 1, PrevLogTerm: 1}, &raft.AppendEntriesRequest{}
	for name, tt := range map[string]struct {
		args     *raft.AppendEntriesRequest
		away     time.Duration
		stop     time.Duration // 0: never
		ok       bool
		min, max time.Duration // how long the call takes
	}{
		"there":                     {entries, 0, 0, true, 0, 0},
		"away for a while":          {entries, 3 * time.Second, 0, true, 3 * time.Second, 3*time.Second + knockAgain},
		"away for long":             {entries, time.Hour, 0, false, knock, knock + knockAgain},
		"the engine is stopped":     {entries, time.Hour, time.Second, false, time.Second, time.Second},
		"a heartbeat does not wait": {beat, time.Hour, 0, false, 0, 0},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				stopped := make(chan struct{})
				if tt.stop > 0 {
					time.AfterFunc(tt.stop, func() { close(stopped) })
				}
				inner := &away{until: time.Now().Add(tt.away)}
				p := paced{
					&raftnet.Transport{Transport: inner}, func() raft.Configuration { return raft.Configuration{} }, stopped, newConfirmations(), &stall{},
				}
				begin := time.Now()
				err := p.AppendEntries("b", "b", tt.args, &raft.AppendEntriesResponse{})
				if took := time.Since(begin); (err == nil) != tt.ok || took < tt.min || took > tt.max {
					t.Errorf("%v after %v and %d tries, want success %v after %v to %v", err, took, inner.tries, tt.ok, tt.min, tt.max)
				}
			})
		})
	}
}
