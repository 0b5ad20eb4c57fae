package peers

import (
	"time"

	"github.com/podman-swarm/podman-swarm/internal/control"
	"github.com/podman-swarm/podman-swarm/internal/gossip"
)

// restartTime is how long an agent that ended on purpose may be away before its pods are replaced.
const restartTime = 15 * time.Second

// Liveness tells the controllers who is alive.
type Liveness struct{ *Peers }

// Members implements control.Liveness.
func (l Liveness) Members() []control.Member {
	var out []control.Member
	for _, m := range l.Peers.Members() {
		member := control.Member{Name: m.Name, Alive: m.Alive(), Since: m.Since}
		if m.Meta.Stopping && m.State == gossip.Dead {
			member.Back = m.Since.Add(restartTime)
		}
		out = append(out, member)
	}
	return out
}
