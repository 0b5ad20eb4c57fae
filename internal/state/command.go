package state

import (
	"encoding/binary"
	"errors"
	"fmt"

	"github.com/podman-swarm/podman-swarm/internal/hlc"
	"github.com/podman-swarm/podman-swarm/internal/state/disk"
)

// A command is one mutation as it stands in the replicated log:
//
//	byte    format version
//	byte    operation
//	uint64  stamp, from the leader that proposed it (big endian)
//	uvarint expected revision + 1 (Any wraps to 0)
//	uvarint expiry in Unix seconds
//	uvarint length of the key, then the key
//	...     the value, to the end
type command struct {
	op      byte
	stamp   hlc.Stamp
	expect  uint64
	expires int64
	key     string
	value   []byte
}

const (
	commandVersion = 1

	opPut    = 1
	opDelete = 2

	// maxKey and maxValue bound one write. The value limit is above everything the API accepts.
	maxKey   = 4 << 10
	maxValue = 8 << 20
)

var errBadCommand = errors.New("malformed log entry")

// encode appends the command to b. The value is the last field, so that a decoded entry can share
// the log entry's memory.
func (c *command) encode(b []byte) []byte {
	b = append(b, commandVersion, c.op)
	b = binary.BigEndian.AppendUint64(b, uint64(c.stamp))
	b = binary.AppendUvarint(b, c.expect+1)
	b = binary.AppendUvarint(b, uint64(c.expires)) //nolint:gosec // never negative
	b = binary.AppendUvarint(b, uint64(len(c.key)))
	b = append(b, c.key...)
	return append(b, c.value...)
}

// size is an upper bound of the encoded length.
func (c *command) size() int {
	return 2 + 8 + 3*binary.MaxVarintLen64 + len(c.key) + len(c.value)
}

// decodeCommand reads a command; its value shares memory with b.
func decodeCommand(b []byte) (command, error) {
	var c command
	if len(b) < 10 {
		return c, errBadCommand
	}
	if err := disk.CheckVersion("log entry", uint32(b[0]), commandVersion); err != nil {
		return c, err
	}
	c.op, c.stamp = b[1], hlc.Stamp(binary.BigEndian.Uint64(b[2:]))
	if c.op != opPut && c.op != opDelete {
		return c, fmt.Errorf("%w: operation %d", errBadCommand, c.op)
	}
	r := reader{b: b[10:]}
	c.expect = r.uvarint() - 1
	expires := r.uvarint()
	c.key = string(r.bytes(maxKey))
	c.expires, c.value = int64(expires), r.b //nolint:gosec // checked below
	switch {
	case r.bad, c.expires < 0, len(c.value) > maxValue, c.key == "":
		return c, errBadCommand
	case c.op == opDelete && (len(c.value) > 0 || expires > 0):
		return c, fmt.Errorf("%w: a deletion carries a value", errBadCommand)
	}
	return c, nil
}

// reader takes fields off the front of b and remembers the first defect.
type reader struct {
	b   []byte
	bad bool
}

func (r *reader) uvarint() uint64 {
	v, n := binary.Uvarint(r.b)
	if n <= 0 {
		r.bad, r.b = true, nil
		return 0
	}
	r.b = r.b[n:]
	return v
}

// bytes reads a length of at most limit and that many bytes, which share memory with b.
func (r *reader) bytes(limit uint64) []byte {
	n := r.uvarint()
	if r.bad || n > limit || n > uint64(len(r.b)) {
		r.bad, r.b = true, nil
		return nil
	}
	v := r.b[:n:n]
	r.b = r.b[n:]
	return v
}
