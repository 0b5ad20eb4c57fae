package state

import (
	"context"
	"errors"
	"net"

	"github.com/podman-swarm/podman-swarm/internal/state/call"
	"github.com/podman-swarm/podman-swarm/internal/state/journal"
	"github.com/podman-swarm/podman-swarm/internal/state/lineage"
	"github.com/podman-swarm/podman-swarm/internal/state/machine"
	"github.com/podman-swarm/podman-swarm/internal/state/space"
)

// Errors a caller branches on; test with errors.Is.
var (
	// ErrConflict says that the key's state did not match the expectation of the write.
	ErrConflict = machine.ErrConflict
	// ErrCompacted says that the revision asked for is older than what this replica retains.
	ErrCompacted = machine.ErrCompacted
	// ErrFuture says that the revision asked for has not happened yet on this replica.
	ErrFuture = machine.ErrFuture
	// ErrNoSpace says that a write was refused because the disk is (nearly) full; reads go on.
	ErrNoSpace = space.ErrNone
	// ErrNoLeader says that no leader could be reached to order the write.
	ErrNoLeader = errors.New("state: no leader")
	// ErrUnsent is within a Network's error when the request certainly did not reach the peer.
	ErrUnsent = call.ErrUnsent
	// ErrClosed says that the store was closed.
	ErrClosed = machine.ErrClosed
	// ErrOnlyReplica says that no other replica could go on without this one.
	ErrOnlyReplica = errors.New("state: this is the only replica with a vote")
)

// What the state machine is made of; package machine documents it.
type (
	// Entry is one key's current state. It is shared and never changes.
	Entry = machine.Entry
	// Event is one mutation. Exactly one event exists per revision.
	Event = machine.Event
	// Result is the outcome of a Write.
	Result = machine.Result
	// View is a consistent snapshot of the store at one revision.
	View = machine.View
	// Watch reads the events below a prefix in order, each exactly once.
	Watch = machine.Watch
	// Retention bounds the history that is kept for watches and old views.
	Retention = machine.Retention
	// Lineage is one unbroken history and where it comes from.
	Lineage = machine.Lineage
	// Handing says what becomes of an entry when its lineage ends in another.
	Handing = journal.Handing
)

// What Handing may be.
const (
	HandOver = journal.HandOver
	Record   = journal.Record
	Withhold = journal.Withhold
)

// What replicas tell of themselves; package lineage documents it.
type (
	// Standing is what a replica tells its peers of itself.
	Standing = lineage.Standing
	// Peer is a node that is alive.
	Peer = lineage.Peer
)

// Network reaches the other replicas.
type Network interface {
	// Listen hands out Raft's streams of one lineage, and of no other.
	Listen(lineage string) (net.Listener, error)
	// Dial opens such a stream; a peer that does not listen for the lineage refuses it.
	Dial(ctx context.Context, addr, lineage string) (net.Conn, error)
	// Call has the peer's Store.Serve answer a request. After an error it may or may not have; after
	// ErrUnsent it has not.
	Call(ctx context.Context, addr string, request []byte) (answer []byte, err error)
}

// Membership knows who is alive.
type Membership interface {
	// Peers are the nodes that are alive, this one included.
	Peers() []Peer
	// Changed returns a channel that closes at the next change of Peers: take it before looking.
	Changed() <-chan struct{}
	// Tell spreads what the peers are to know of this replica.
	Tell(s Standing)
}

// Any is an expectation that every state of a key meets.
const Any = machine.Any

// Write is a compare-and-swap on one key, decided inside the FSM.
type Write struct {
	Key    string
	Value  []byte // ignored when Delete is set
	Delete bool
	// Expect is the ModRevision the key must have; 0 means "must not exist"; Any means no check.
	Expect uint64
	TTL    int64 // seconds until the key expires; 0 = never
}
