package voters

import (
	"time"

	"github.com/hashicorp/raft"
)

// Left are the replicas that asked to be taken out, and when.
type Left map[raft.ServerID]time.Time

// LeftFor is how long what gossip tells of a replica may be older than its leaving.
const LeftFor = time.Minute

// Forget forgets a replica as soon as gossip tells of it no more, and returns when to come again for the
// others; 0: there are none. Who is told of after that has given up leaving, and runs on.
func (l Left) Forget(now time.Time, told func(raft.ServerID) bool) (again time.Duration) {
	for id, at := range l {
		rest := at.Add(LeftFor).Sub(now)
		if !told(id) || rest <= 0 {
			delete(l, id)
		} else if again == 0 || rest < again {
			again = rest
		}
	}
	return again
}
