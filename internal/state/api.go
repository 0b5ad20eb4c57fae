package state

import (
	"errors"

	"github.com/podman-swarm/podman-swarm/internal/state/machine"
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
	ErrNoSpace = errors.New("state: no space left for writes")
	// ErrNoLeader says that no leader could be reached to order the write.
	ErrNoLeader = errors.New("state: no leader")
	// ErrClosed says that the store was closed.
	ErrClosed = machine.ErrClosed
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
)

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
