package call

import (
	"encoding/binary"
	"errors"

	"github.com/podman-swarm/podman-swarm/internal/state/codec"
)

// Kind is what is asked for.
type Kind byte

// What a replica can be asked for; all but Position of the leader.
const (
	Write    Kind = 1 + iota // body: flags, expected revision + 1, TTL, length of key, key, value
	Barrier                  // a revision that no acknowledged write is beyond; body: the asker's own
	Position                 // how far the replica's log reaches
	Meet                     // body: the lineage and the server that want to hand over; answer: the leader's lineage
	Merge                    // body: a chunk of what is handed over
	Leave                    // body: the server to take out of the configuration
)

// Status is how it went.
type Status byte

// How a call went; above Conflict the body is a text for people.
const (
	OK       Status = iota
	Conflict        // body: the entry that stands
	NoSpace
	Retry   // certainly nothing happened: another replica leads, or the lineage is another
	Unknown // any other error
)

// Request is a call.
type Request struct {
	Kind    Kind
	Lineage string
	Body    []byte
}

// Answer is what comes back.
type Answer struct {
	Status   Status
	Revision uint64
	Body     []byte
}

const (
	version    = 1
	maxLineage = 64
)

// ErrMalformed says that bytes are no call.
var ErrMalformed = errors.New("malformed call between replicas")

// Encode returns the request's bytes.
func (r Request) Encode() []byte {
	b := make([]byte, 0, 3+len(r.Lineage)+len(r.Body))
	b = append(b, version, byte(r.Kind), byte(len(r.Lineage)))
	b = append(b, r.Lineage...)
	return append(b, r.Body...)
}

// DecodeRequest reads what Encode wrote; the body shares memory with b.
func DecodeRequest(b []byte) (Request, error) {
	if len(b) < 3 {
		return Request{}, ErrMalformed
	}
	if err := codec.CheckVersion("call from a peer", uint32(b[0]), version); err != nil {
		return Request{}, err
	}
	r := codec.Reader{B: b[2:]}
	q := Request{Kind: Kind(b[1]), Lineage: string(r.Bytes(maxLineage))}
	if q.Body = r.B; r.Bad {
		return Request{}, ErrMalformed
	}
	return q, nil
}

// Encode returns the answer's bytes.
func (a Answer) Encode() []byte {
	b := binary.AppendUvarint([]byte{version, byte(a.Status)}, a.Revision)
	return append(b, a.Body...)
}

// DecodeAnswer reads what Encode wrote; the body shares memory with b.
func DecodeAnswer(b []byte) (Answer, error) {
	if len(b) < 2 {
		return Answer{}, ErrMalformed
	}
	if err := codec.CheckVersion("answer from a peer", uint32(b[0]), version); err != nil {
		return Answer{}, err
	}
	r := codec.Reader{B: b[2:]}
	a := Answer{Status: Status(b[1]), Revision: r.Uvarint()}
	if a.Body = r.B; r.Bad {
		return Answer{}, ErrMalformed
	}
	return a, nil
}

// Reach is the answer to Position.
type Reach struct {
	Eligible    bool // it holds a history that could go on with it
	Full        bool // its disk has no room for writes
	Term, Index uint64
}

const (
	eligible = 1 << iota
	full
)

// Encode returns the bytes of an answer's body.
func (s Reach) Encode() []byte {
	b := []byte{0}
	if s.Eligible {
		b[0] = eligible
	}
	if s.Full {
		b[0] |= full // then former versions do not take it for eligible
	}
	return binary.AppendUvarint(binary.AppendUvarint(b, s.Term), s.Index)
}

// DecodeReach reads what Encode wrote.
func DecodeReach(b []byte) (Reach, error) {
	if len(b) == 0 {
		return Reach{}, ErrMalformed
	}
	r := codec.Reader{B: b[1:]}
	s := Reach{Eligible: b[0]&eligible != 0, Full: b[0]&full != 0, Term: r.Uvarint(), Index: r.Uvarint()}
	if r.Bad || len(r.B) > 0 {
		return Reach{}, ErrMalformed
	}
	return s, nil
}
