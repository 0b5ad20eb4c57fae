package lineage

import (
	"encoding/binary"
	"errors"
	"strings"

	"github.com/podman-swarm/podman-swarm/internal/hlc"
	"github.com/podman-swarm/podman-swarm/internal/state/codec"
)

// Standing is what a replica tells its peers of itself. It changes with leadership and lineage, and
// says how far the log reaches only while nobody leads: an idle cluster has nothing to tell.
type Standing struct {
	Server  string // the replica's name in its lineage; empty: it takes no part
	Lineage string
	Born    hlc.Stamp // when the lineage began; 0: it is not known here yet
	Leader  bool
	Term    uint64 // of the last log entry
	Index   uint64
}

// Peer is a node that is alive.
type Peer struct {
	Name, Addr string
	Standing   Standing
}

const (
	standingVersion = 1
	leaderFlag      = 1

	// maxNode bounds what is taken of a node's name into a server's, so that a Standing is small.
	maxNode = 63
	// MaxServer bounds the name of a server, in bytes.
	MaxServer = 96
	// MaxLineage bounds the name of a lineage.
	MaxLineage = 64
	// MaxStanding is the size of the largest encoded Standing.
	MaxStanding = 200
)

// ServerName names a replica of a node; random tells its incarnations apart.
func ServerName(node, random string) string {
	return node[:min(len(node), maxNode)] + "." + random
}

// NodePart is what the server names of one node begin with.
func NodePart(server string) string {
	if i := strings.LastIndexByte(server, '.'); i >= 0 {
		return server[:i]
	}
	return server
}

var errBadStanding = errors.New("malformed standing")

// Encode returns at most MaxStanding bytes.
func (s Standing) Encode() []byte {
	b := []byte{standingVersion, 0}
	if s.Leader {
		b[1] = leaderFlag
	}
	b = binary.BigEndian.AppendUint64(b, uint64(s.Born))
	b = binary.AppendUvarint(b, s.Term)
	b = binary.AppendUvarint(b, s.Index)
	for _, name := range []string{s.Server, s.Lineage} {
		b = binary.AppendUvarint(b, uint64(len(name)))
		b = append(b, name...)
	}
	return b
}

// DecodeStanding reads what Encode wrote. Nothing at all is the zero Standing: a peer that has not spoken.
func DecodeStanding(b []byte) (Standing, error) {
	var s Standing
	if len(b) == 0 {
		return s, nil
	}
	if len(b) < 2 || len(b) > MaxStanding {
		return s, errBadStanding
	}
	if err := codec.CheckVersion("standing of a peer", uint32(b[0]), standingVersion); err != nil {
		return s, err
	}
	s.Leader = b[1]&leaderFlag != 0
	r := codec.Reader{B: b[2:]}
	s.Born, s.Term, s.Index = hlc.Stamp(r.Uint64()), r.Uvarint(), r.Uvarint()
	s.Server, s.Lineage = string(r.Bytes(MaxServer)), string(r.Bytes(MaxLineage))
	if r.Bad || len(r.B) > 0 {
		return Standing{}, errBadStanding
	}
	return s, nil
}
