package lab

import (
	"time"

	"github.com/hashicorp/raft"

	"github.com/podman-swarm/podman-swarm/internal/state/disk"
)

// Lab is what a simulation changes. The zero value is the world as it is.
type Lab struct {
	// Clock is the node's, which may be wrong; nil: time.Now.
	Clock func() time.Time
	// Disk sees what is done to files, and may spoil it.
	Disk disk.Probe
	// Segment is the size of the log's files; 0: the usual.
	Segment int64
	// Compact has a snapshot take the place of the log after so many entries; 0: the usual.
	Compact uint64
	// Step is called where a power failure would be awkward, with what is under way.
	Step func(step string)
}

// Now is the node's time.
func (l Lab) Now() time.Time {
	if l.Clock == nil {
		return time.Now()
	}
	return l.Clock()
}

// Tune changes Raft's settings.
func (l Lab) Tune(r *raft.Config) {
	if l.Compact > 0 {
		r.SnapshotThreshold, r.TrailingLogs, r.SnapshotInterval = l.Compact, l.Compact/4, time.Second
	}
}
