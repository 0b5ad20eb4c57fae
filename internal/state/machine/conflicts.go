package machine

import (
	"errors"
	"fmt"
	"iter"

	"github.com/podman-swarm/podman-swarm/internal/state/journal"
)

// ConflictPrefix is where the conflict journal is kept.
const ConflictPrefix = journal.Prefix

// ErrNoConflict says that the journal has no such record; it may have expired.
var ErrNoConflict = errors.New("state: no such conflict")

// Conflicts returns the journal in the order of the writes that were lost. A record that cannot be
// read comes as an error; the others follow.
func Conflicts(v View) iter.Seq2[*Conflict, error] {
	const end = "/swarm/conflicts0" // the first key after all that begin with the prefix
	return func(yield func(*Conflict, error) bool) {
		v.Ascend(ConflictPrefix, end, func(e *Entry) bool { return yield(journal.Decode(e.Key, e.Value)) })
	}
}

// GetConflict returns a record of the journal: ErrNoConflict when there is none.
func GetConflict(v View, id string) (*Conflict, error) {
	e, ok := v.Get(ConflictPrefix + id)
	if !ok {
		return nil, fmt.Errorf("conflict %s: %w", id, ErrNoConflict)
	}
	return journal.Decode(e.Key, e.Value)
}

// Undo returns the write that puts the lost state back in place of the key's current entry (nil: it
// does not exist), provided that this still stands when the write is decided. Its stamp is for the
// leader to give. False: the key is as it was before, there is nothing to do.
func Undo(c *Conflict, current *Entry) (Command, bool) {
	w := Command{Key: c.Key, Delete: c.Lost.Deleted, Value: c.Lost.Value, Expires: c.Lost.Expires}
	if current == nil {
		return w, !c.Same(nil, false)
	}
	w.Expect = current.ModRevision
	return w, !c.Same(current.Value, true)
}
