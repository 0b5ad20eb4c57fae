package machine

import (
	"encoding/binary"
	"errors"
	"fmt"

	"github.com/podman-swarm/podman-swarm/internal/hlc"
	"github.com/podman-swarm/podman-swarm/internal/state/codec"
)

// Command is one mutation as it stands in the replicated log:
//
//	byte    format version
//	byte    operation
//	uint64  stamp, from the leader that proposed it (big endian)
//	uvarint expected revision + 1 (Any wraps to 0)
//	uvarint expiry in Unix seconds
//	uvarint length of the key, then the key
//	...     the value, to the end
//
// Expect is as in Write. A deletion has neither value nor expiry.
type Command struct {
	Delete  bool
	Stamp   hlc.Stamp
	Expect  uint64
	Expires int64
	Key     string
	Value   []byte
}

// Writes are still written as version 1, so that a program without merges reads on until the first.
const (
	writeVersion   = 1
	commandVersion = 2

	opPut    = 1
	opDelete = 2
	opMerge  = 3

	mergeVersion = 2 // the first that knew merges

	// MaxKey bounds the key of a write, in bytes.
	MaxKey = 4 << 10
	// MaxValue bounds the value of a write, in bytes. It is above everything the API accepts.
	MaxValue = 8 << 20
)

var errBadCommand = errors.New("malformed log entry")

// Encode returns the command as a log entry. The value is the last field, so that a decoded entry
// can share the log entry's memory.
func (c *Command) Encode() []byte {
	op := byte(opPut)
	if c.Delete {
		op = opDelete
	}
	b := make([]byte, 0, 2+8+3*binary.MaxVarintLen64+len(c.Key)+len(c.Value))
	b = append(b, writeVersion, op)
	b = binary.BigEndian.AppendUint64(b, uint64(c.Stamp))
	b = binary.AppendUvarint(b, c.Expect+1)
	b = binary.AppendUvarint(b, uint64(c.Expires))
	b = binary.AppendUvarint(b, uint64(len(c.Key)))
	b = append(b, c.Key...)
	return append(b, c.Value...)
}

// errNewer says that a log entry is beyond this program; what follows it is, too.
var errNewer = errors.New("log entry of a newer version")

func checkCommand(version byte) error {
	err := codec.CheckVersion("log entry", uint32(version), commandVersion)
	if version > commandVersion {
		return fmt.Errorf("%w: %w", errNewer, err)
	}
	return err
}

// decodeCommand reads a command; its value shares memory with b.
func decodeCommand(b []byte) (Command, error) {
	var c Command
	if len(b) < 10 {
		return c, errBadCommand
	}
	if err := checkCommand(b[0]); err != nil {
		return c, err
	}
	r := codec.Reader{B: b[2:]}
	c.Delete, c.Stamp = b[1] == opDelete, hlc.Stamp(r.Uint64())
	c.Expect = r.Uvarint() - 1
	expires := r.Uvarint()
	c.Key = string(r.Bytes(MaxKey))
	c.Expires, c.Value = int64(expires), r.B
	switch {
	case b[1] != opPut && b[1] != opDelete:
		return c, fmt.Errorf("%w: operation %d", errBadCommand, b[1])
	case r.Bad, c.Expires < 0, len(c.Value) > MaxValue, c.Key == "":
		return c, errBadCommand
	case c.Delete && (len(c.Value) > 0 || expires > 0):
		return c, fmt.Errorf("%w: a deletion carries a value", errBadCommand)
	}
	return c, nil
}
