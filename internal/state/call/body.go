package call

import (
	"encoding/binary"
	"time"

	"github.com/podman-swarm/podman-swarm/internal/state/codec"
	"github.com/podman-swarm/podman-swarm/internal/state/lineage"
)

// Mutation is what Write carries.
type Mutation struct {
	Key    string
	Value  []byte
	Delete bool
	Expect uint64
	TTL    int64
}

// Encode returns the body of a Write.
func (m Mutation) Encode() []byte {
	b := []byte{0}
	if m.Delete {
		b[0], m.Value = 1, nil
	}
	b = binary.AppendUvarint(b, m.Expect+1)
	b = binary.AppendUvarint(b, uint64(m.TTL))
	b = binary.AppendUvarint(b, uint64(len(m.Key)))
	return append(append(b, m.Key...), m.Value...)
}

// maxTTL bounds what a peer can ask for: a hundred years.
const maxTTL = uint64(100 * 365 * 24 * time.Hour / time.Second)

// DecodeMutation reads what Encode wrote; the value shares memory with b.
func DecodeMutation(b []byte) (Mutation, error) {
	if len(b) == 0 {
		return Mutation{}, ErrMalformed
	}
	m, r := Mutation{Delete: b[0] == 1}, codec.Reader{B: b[1:]}
	m.Expect = r.Uvarint() - 1
	m.TTL = int64(min(r.Uvarint(), maxTTL))
	m.Key = string(r.Bytes(uint64(len(b))))
	if m.Value = r.B; r.Bad {
		return Mutation{}, ErrMalformed
	}
	return m, nil
}

// AppendName begins the body of a Meet or a Merge: who asks.
func AppendName(b []byte, name string) []byte {
	return append(binary.AppendUvarint(b, uint64(len(name))), name...)
}

// TakeName undoes AppendName.
func TakeName(b []byte) (name string, rest []byte, err error) {
	r := codec.Reader{B: b}
	name = string(r.Bytes(lineage.MaxServer))
	if r.Bad {
		return "", nil, ErrMalformed
	}
	return name, r.B, nil
}
