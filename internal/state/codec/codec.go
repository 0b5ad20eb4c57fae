package codec

import (
	"encoding/binary"
	"fmt"
)

// Reader takes fields off the front of B. It remembers the first defect in Bad and reads zero
// values after it, so a caller checks once at the end.
type Reader struct {
	B   []byte
	Bad bool
}

func (r *Reader) fail() { r.Bad, r.B = true, nil }

// Uvarint reads a number of variable length.
func (r *Reader) Uvarint() uint64 {
	v, n := binary.Uvarint(r.B)
	if n <= 0 {
		r.fail()
		return 0
	}
	r.B = r.B[n:]
	return v
}

// Byte reads one byte.
func (r *Reader) Byte() byte {
	if len(r.B) == 0 {
		r.fail()
		return 0
	}
	v := r.B[0]
	r.B = r.B[1:]
	return v
}

// Uint64 reads eight bytes, big endian.
func (r *Reader) Uint64() uint64 {
	if len(r.B) < 8 {
		r.fail()
		return 0
	}
	v := binary.BigEndian.Uint64(r.B)
	r.B = r.B[8:]
	return v
}

// Bytes reads a length of at most limit and that many bytes, which share memory with B.
func (r *Reader) Bytes(limit uint64) []byte {
	n := r.Uvarint()
	if r.Bad || n > limit || n > uint64(len(r.B)) {
		r.fail()
		return nil
	}
	v := r.B[:n:n]
	r.B = r.B[n:]
	return v
}

// AppendString appends a length and the string, which Bytes reads.
func AppendString(b []byte, s string) []byte {
	return append(binary.AppendUvarint(b, uint64(len(s))), s...)
}

// CheckVersion accepts the current format version and the one before it.
func CheckVersion(what string, got, current uint32) error {
	oldest := max(1, current-1)
	switch {
	case got > current:
		return fmt.Errorf("%s has format version %d, this program reads up to %d: "+
			"written by a newer version", what, got, current)
	case got < oldest:
		return fmt.Errorf("%s has format version %d, this program reads %d to %d: "+
			"start a version in between once", what, got, oldest, current)
	}
	return nil
}
