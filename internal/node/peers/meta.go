package peers

import (
	"encoding/binary"
	"errors"
	"fmt"

	"github.com/podman-swarm/podman-swarm/internal/state"
	"github.com/podman-swarm/podman-swarm/internal/state/lineage"
)

// Meta is what a node says of itself by gossip. Encoded it has at most 512 bytes.
type Meta struct {
	// Standing is the state's own, encoded.
	Standing state.Standing
	// API is where the node's Kubernetes API is reached, host:port.
	API string
	// Release is the program's version.
	Release string
	// Stopping: its agent ends on purpose, to be started again; its containers run on.
	Stopping bool
}

const (
	metaVersion  = 1
	flagStopping = 1
	// maxText bounds each text, so that the whole fits into gossip's 512 bytes.
	maxText = 100
)

var errBadMeta = errors.New("malformed words about a member")

// Encode returns what DecodeMeta reads.
func (m Meta) Encode() []byte {
	b := []byte{metaVersion}
	flags := []byte{0}
	if m.Stopping {
		flags[0] = flagStopping
	}
	for _, part := range [][]byte{m.Standing.Encode(), clip(m.API), clip(m.Release), flags} {
		b = binary.AppendUvarint(b, uint64(len(part)))
		b = append(b, part...)
	}
	return b
}

func clip(s string) []byte { return []byte(s[:min(len(s), maxText)]) }

// DecodeMeta reads what a peer says of itself. What a newer release appends is ignored.
func DecodeMeta(b []byte) (Meta, error) {
	if len(b) == 0 || b[0] != metaVersion {
		return Meta{}, fmt.Errorf("%w: version", errBadMeta)
	}
	b = b[1:]
	var parts [4][]byte
	for i := range parts {
		n, size := binary.Uvarint(b)
		if size <= 0 || n > uint64(len(b)-size) {
			return Meta{}, fmt.Errorf("%w: cut short", errBadMeta)
		}
		parts[i], b = b[size:size+int(n)], b[size+int(n):]
	}
	standing, err := lineage.DecodeStanding(parts[0])
	if err != nil {
		return Meta{}, fmt.Errorf("%w: %w", errBadMeta, err)
	}
	return Meta{
		Standing: standing, API: string(parts[1]), Release: string(parts[2]),
		Stopping: len(parts[3]) > 0 && parts[3][0]&flagStopping != 0,
	}, nil
}
