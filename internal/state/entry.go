package state

import (
	"encoding/binary"

	"github.com/podman-swarm/podman-swarm/internal/hlc"
)

// encode appends the entry, as snapshots and answers to peers carry it.
func (e *Entry) encode(b []byte) []byte {
	b = binary.AppendUvarint(b, uint64(len(e.Key)))
	b = append(b, e.Key...)
	b = binary.AppendUvarint(b, e.CreateRevision)
	b = binary.AppendUvarint(b, e.ModRevision)
	b = binary.BigEndian.AppendUint64(b, uint64(e.Stamp))
	b = binary.AppendUvarint(b, uint64(e.Expires)) //nolint:gosec // never negative
	b = binary.AppendUvarint(b, uint64(len(e.Value)))
	return append(b, e.Value...)
}

// maxEntry bounds an encoded entry.
const maxEntry = maxKey + maxValue + 64

// entry reads what Entry.encode wrote; the value shares memory with the input.
func (r *reader) entry() *Entry {
	e := &Entry{Key: string(r.bytes(maxKey))}
	e.CreateRevision, e.ModRevision = r.uvarint(), r.uvarint()
	if len(r.b) < 8 {
		r.bad, r.b = true, nil
		return e
	}
	e.Stamp, r.b = hlc.Stamp(binary.BigEndian.Uint64(r.b)), r.b[8:]
	e.Expires = int64(r.uvarint()) //nolint:gosec // checked below
	e.Value = r.bytes(maxValue)
	r.bad = r.bad || e.Expires < 0 || e.Key == "" ||
		e.CreateRevision == 0 || e.CreateRevision > e.ModRevision
	return e
}
