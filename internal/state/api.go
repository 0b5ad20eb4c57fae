package state

import (
	"errors"
	"time"

	"github.com/podman-swarm/podman-swarm/internal/hlc"
)

// Errors a caller branches on; test with errors.Is.
var (
	// ErrConflict says that the key's state did not match the expectation of the write.
	ErrConflict = errors.New("state: conflict")
	// ErrCompacted says that the revision asked for is older than what this replica retains.
	ErrCompacted = errors.New("state: revision compacted")
	// ErrFuture says that the revision asked for has not happened yet on this replica.
	ErrFuture = errors.New("state: revision in the future")
	// ErrNoSpace says that a write was refused because the disk is (nearly) full; reads go on.
	ErrNoSpace = errors.New("state: no space left for writes")
	// ErrNoLeader says that no leader could be reached to order the write.
	ErrNoLeader = errors.New("state: no leader")
	// ErrClosed says that the store was closed.
	ErrClosed = errors.New("state: closed")
)

// Entry is one key's current state. Entries are immutable once published: callers must not
// change Value.
type Entry struct {
	Key            string
	Value          []byte
	CreateRevision uint64    // revision of the write that created the key
	ModRevision    uint64    // revision of the last write to the key
	Stamp          hlc.Stamp // orders writes across lineages; decides merges
	Expires        int64     // Unix seconds after which the leader proposes deletion; 0 = never
}

// Event is one mutation. Exactly one event exists per revision.
type Event struct {
	Revision uint64
	Key      string
	Entry    *Entry // nil when the key was deleted
	Prev     *Entry // nil when the key was created
}

// Any is an expectation that every state of a key meets.
const Any = ^uint64(0)

// Write is a compare-and-swap on one key, decided inside the FSM.
type Write struct {
	Key    string
	Value  []byte // ignored when Delete is set
	Delete bool
	// Expect is the ModRevision the key must have; 0 means "must not exist"; Any means no check.
	Expect uint64
	TTL    int64 // seconds until the key expires; 0 = never
}

// Result is the outcome of a Write.
type Result struct {
	// Revision is the revision of this mutation.
	Revision uint64
	// Entry is the entry now stored (for a delete: the entry that was removed).
	Entry *Entry
	// Current is set with ErrConflict: the entry that stands, nil when the key does not exist.
	Current *Entry
}

// Retention bounds the history that is kept in memory for watches and old views: what is older
// than Age goes, and what is more than Events. After a quiet time nothing is kept.
type Retention struct {
	Age    time.Duration // default 5 minutes
	Events int           // default 10,000
}
