package machine

import (
	"encoding/binary"
	"errors"

	"github.com/podman-swarm/podman-swarm/internal/hlc"
	"github.com/podman-swarm/podman-swarm/internal/state/codec"
)

// Append appends the entry, as snapshots and answers to peers carry it.
func (e *Entry) Append(b []byte) []byte {
	b = binary.AppendUvarint(b, uint64(len(e.Key)))
	b = append(b, e.Key...)
	b = binary.AppendUvarint(b, e.CreateRevision)
	b = binary.AppendUvarint(b, e.ModRevision)
	b = binary.BigEndian.AppendUint64(b, uint64(e.Stamp))
	b = binary.AppendUvarint(b, uint64(e.Expires))
	b = binary.AppendUvarint(b, uint64(len(e.Value)))
	return append(b, e.Value...)
}

const (
	// maxStored bounds the value of a stored entry: a conflict holds two values and some names.
	maxStored = 2*MaxValue + 64<<10
	// maxEntry bounds an encoded entry.
	maxEntry = MaxKey + maxStored + 64
)

// ErrBadEntry says that bytes are no encoded entry.
var ErrBadEntry = errors.New("malformed entry")

// DecodeEntry reads what Entry.Append wrote; the value shares memory with b.
func DecodeEntry(b []byte) (*Entry, error) {
	r := codec.Reader{B: b}
	e := &Entry{Key: string(r.Bytes(MaxKey))}
	e.CreateRevision, e.ModRevision = r.Uvarint(), r.Uvarint()
	e.Stamp, e.Expires = hlc.Stamp(r.Uint64()), int64(r.Uvarint())
	e.Value = r.Bytes(maxStored)
	if r.Bad || len(r.B) > 0 || e.Expires < 0 || e.Key == "" ||
		e.CreateRevision == 0 || e.CreateRevision > e.ModRevision {
		return nil, ErrBadEntry
	}
	return e, nil
}
