package machine

import (
	"errors"
	"time"

	"github.com/podman-swarm/podman-swarm/internal/hlc"
	"github.com/podman-swarm/podman-swarm/internal/state/ancestry"
	"github.com/podman-swarm/podman-swarm/internal/state/journal"
)

// Errors that package state hands on.
var (
	ErrConflict  = errors.New("state: conflict")
	ErrCompacted = errors.New("state: revision compacted")
	ErrFuture    = errors.New("state: revision in the future")
	ErrClosed    = errors.New("state: closed")
	// ErrRetired says that another machine took this one's place: try again there.
	ErrRetired = errors.New("state: this replica was replaced by another")
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

// What merges are made of.
type (
	// Lineage names one unbroken history of the state and says where it comes from.
	Lineage = ancestry.Lineage
	// Ancestor is a lineage and the point up to which its history is also that of its descendant.
	Ancestor = ancestry.Ancestor
	// Point is a moment of a history.
	Point = ancestry.Point
	// Conflict is a record of the journal.
	Conflict = journal.Conflict
	// Side is one lineage's state of a key.
	Side = journal.Side
)

// Event is one mutation. Exactly one event exists per revision.
type Event struct {
	Revision uint64
	Key      string
	Entry    *Entry // nil when the key was deleted
	Prev     *Entry // nil when the key was created
}

// Any is an expectation that every state of a key meets.
const Any = ^uint64(0)

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
