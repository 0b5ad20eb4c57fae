package journal

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/podman-swarm/podman-swarm/internal/hlc"
	"github.com/podman-swarm/podman-swarm/internal/state/codec"
)

// Prefix is where records are kept, as ordinary keys. ID names one below it.
const Prefix = "/swarm/conflicts/"

// Age is how long a record is kept.
const Age = 7 * 24 * time.Hour

// Conflict is a record: two lineages had both changed a key, and one of the states was lost in the
// merge. As it is stored:
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

const version = 1

var errBad = errors.New("malformed conflict")

// ID is the name of the record of a loss: first its stamp, so that records are in order of time.
// The same loss has the same name, however often and by whatever it is overwritten.
func ID(key string, lost Side) string {
	lost.Lineage, lost.Born = "", 0
	sum := sha256.Sum256(lost.append(codec.AppendString(nil, key)))
	return fmt.Sprintf("%016x-%s", uint64(lost.Stamp), hex.EncodeToString(sum[:8]))
}

// Encode returns the record as it is stored.
func (c *Conflict) Encode() []byte {
	b := make([]byte, 0, len(c.Key)+len(c.Kept.Value)+len(c.Lost.Value)+256)
	b = codec.AppendString(append(b, version), c.Key)
	b = binary.AppendUvarint(b, uint64(c.At))
	return c.Lost.append(c.Kept.append(b))
}

func (s *Side) append(b []byte) []byte {
	b = codec.AppendString(b, s.Lineage)
	b = binary.BigEndian.AppendUint64(b, uint64(s.Born))
	b = binary.BigEndian.AppendUint64(b, uint64(s.Stamp))
	deleted := byte(0)
	if s.Deleted {
		deleted = 1
	}
	b = binary.AppendUvarint(append(b, deleted), uint64(s.Expires))
	b = binary.AppendUvarint(b, uint64(len(s.Value)))
	return append(b, s.Value...)
}

// Decode reads the record stored at a key; values share memory with it.
func Decode(key string, value []byte) (*Conflict, error) {
	id, ok := strings.CutPrefix(key, Prefix)
	if !ok || len(value) == 0 {
		return nil, fmt.Errorf("read %s: %w", key, errBad)
	}
	if err := codec.CheckVersion("conflict", uint32(value[0]), version); err != nil {
		return nil, fmt.Errorf("read %s: %w", key, err)
	}
	r := codec.Reader{B: value[1:]}
	limit := uint64(len(value))
	c := &Conflict{ID: id, Key: string(r.Bytes(limit)), At: int64(r.Uvarint())}
	for _, s := range []*Side{&c.Kept, &c.Lost} {
		s.Lineage = string(r.Bytes(limit))
		s.Born, s.Stamp = hlc.Stamp(r.Uint64()), hlc.Stamp(r.Uint64())
		deleted := r.Byte()
		s.Deleted, s.Expires = deleted == 1, int64(r.Uvarint())
		s.Value = r.Bytes(limit)
		r.Bad = r.Bad || deleted > 1 || s.Expires < 0 || s.Deleted && len(s.Value) > 0
	}
	if r.Bad || len(r.B) > 0 || c.Key == "" || c.At < 0 {
		return nil, fmt.Errorf("read %s: %w", key, errBad)
	}
	return c, nil
}

// Same reports whether a value (exists false: none) is what was lost, so that nothing is left to
// put back.
func (c *Conflict) Same(value []byte, exists bool) bool {
	if c.Lost.Deleted || !exists {
		return c.Lost.Deleted != exists
	}
	return bytes.Equal(c.Lost.Value, value)
}
