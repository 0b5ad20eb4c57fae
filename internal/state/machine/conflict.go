package machine

import (
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"iter"
	"strings"
	"time"

	"github.com/podman-swarm/podman-swarm/internal/hlc"
	"github.com/podman-swarm/podman-swarm/internal/state/codec"
)

// ConflictPrefix is where the conflict journal is kept: ordinary keys, each named by the stamp of
// the write that was lost and a hash of it, so that they are in order of time and the same loss has
// the same name however often it is met.
const ConflictPrefix = "/swarm/conflicts/"

const conflictAge = int64(7 * 24 * time.Hour / time.Second)

// Conflict is a record of the journal: two lineages had both changed a key, and one of the states
// was lost in the merge. As it is stored:
//
//	byte    format version
//	uvarint length of the key, then the key
//	uvarint when the merge was, in Unix seconds
//	        what was kept, what was lost; each:
//	uvarint length of the lineage, then the lineage
//	uint64  the lineage's birth, uint64 stamp of the write
//	byte    1: deleted
//	uvarint expiry in Unix seconds, 0: never
//	uvarint length of the value, then the value
type Conflict struct {
	ID         string // the end of the record's own key
	Key        string
	At         int64 // Unix seconds
	Kept, Lost Side
}

// Side is one lineage's state of a key.
type Side struct {
	Lineage string
	Born    hlc.Stamp // the lineage
	Stamp   hlc.Stamp // the write
	Deleted bool
	Expires int64
	Value   []byte
}

const conflictVersion = 1

var (
	// ErrNoConflict says that the journal has no such record; it may have expired.
	ErrNoConflict  = errors.New("state: no such conflict")
	errBadConflict = errors.New("malformed conflict")
)

func conflictID(lost *change) string {
	state := *lost
	state.rev = 0 // differs between lineages
	sum := sha256.Sum256(state.append(nil))
	return fmt.Sprintf("%016x-%s", uint64(lost.stamp), hex.EncodeToString(sum[:8]))
}

func (c *Conflict) encode() []byte {
	b := appendString([]byte{conflictVersion}, c.Key)
	b = binary.AppendUvarint(b, uint64(c.At))
	for _, s := range []*Side{&c.Kept, &c.Lost} {
		b = appendString(b, s.Lineage)
		b = binary.BigEndian.AppendUint64(b, uint64(s.Born))
		b = binary.BigEndian.AppendUint64(b, uint64(s.Stamp))
		deleted := byte(0)
		if s.Deleted {
			deleted = 1
		}
		b = binary.AppendUvarint(append(b, deleted), uint64(s.Expires))
		b = binary.AppendUvarint(b, uint64(len(s.Value)))
		b = append(b, s.Value...)
	}
	return b
}

// DecodeConflict reads a record of the journal; values share memory with the entry.
func DecodeConflict(e *Entry) (*Conflict, error) {
	id, ok := strings.CutPrefix(e.Key, ConflictPrefix)
	if !ok || len(e.Value) == 0 {
		return nil, fmt.Errorf("read %s: %w", e.Key, errBadConflict)
	}
	if err := codec.CheckVersion("conflict", uint32(e.Value[0]), conflictVersion); err != nil {
		return nil, fmt.Errorf("read %s: %w", e.Key, err)
	}
	r := codec.Reader{B: e.Value[1:]}
	c := &Conflict{ID: id, Key: string(r.Bytes(MaxKey)), At: int64(r.Uvarint())}
	for _, s := range []*Side{&c.Kept, &c.Lost} {
		s.Lineage = string(r.Bytes(MaxLineageID))
		s.Born, s.Stamp = hlc.Stamp(r.Uint64()), hlc.Stamp(r.Uint64())
		deleted := r.Byte()
		s.Deleted, s.Expires = deleted == 1, int64(r.Uvarint())
		s.Value = r.Bytes(MaxValue)
		r.Bad = r.Bad || deleted > 1 || s.Expires < 0 || s.Deleted && len(s.Value) > 0
	}
	if r.Bad || len(r.B) > 0 || c.Key == "" || c.At < 0 {
		return nil, fmt.Errorf("read %s: %w", e.Key, errBadConflict)
	}
	return c, nil
}

// Conflicts returns the journal in the order of the writes that were lost. A record that cannot be
// read comes as an error; the others follow.
func Conflicts(v View) iter.Seq2[*Conflict, error] {
	return func(yield func(*Conflict, error) bool) {
		v.Ascend(ConflictPrefix, prefixEnd(ConflictPrefix), func(e *Entry) bool { return yield(DecodeConflict(e)) })
	}
}

// GetConflict returns a record of the journal: ErrNoConflict when there is none.
func GetConflict(v View, id string) (*Conflict, error) {
	e, ok := v.Get(ConflictPrefix + id)
	if !ok {
		return nil, fmt.Errorf("conflict %s: %w", id, ErrNoConflict)
	}
	return DecodeConflict(e)
}

// Undo returns the write that puts the lost state back in place of the key's current entry (nil: it
// does not exist), provided that this is still what stands when the write is decided. False: the
// key is as it was before, there is nothing to do.
func (c *Conflict) Undo(current *Entry) (Command, bool) {
	w := Command{Key: c.Key, Delete: c.Lost.Deleted, Value: c.Lost.Value, Expires: c.Lost.Expires}
	if current == nil {
		return w, !w.Delete
	}
	w.Expect = current.ModRevision
	return w, w.Delete || string(w.Value) != string(current.Value)
}

// prefixEnd is the first key after all that begin with a prefix of ordinary letters.
func prefixEnd(prefix string) string { return prefix[:len(prefix)-1] + string(prefix[len(prefix)-1]+1) }
