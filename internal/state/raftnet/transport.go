package raftnet

import (
	"io"
	"log/slog"
	"time"

	"github.com/hashicorp/raft"
)

// Transport is Raft's transport without its Close: it serves every run of Raft in one lineage and
// is ended by End.
type Transport struct {
	raft.Transport
	raft.WithPreVote
	closer io.Closer
}

// SoloAddr is the address of a replica that has no network.
const SoloAddr raft.ServerAddress = "local"

const (
	streamTimeout = 10 * time.Second
	// streamPool is how many idle streams to a peer are kept beside the one that replicates. Raft
	// gives each a buffer of 256 kB.
	streamPool = 1
)

// New makes a transport over a stream, which it closes with itself.
func New(s *Stream, log *slog.Logger) *Transport {
	t := raft.NewNetworkTransportWithConfig(&raft.NetworkTransportConfig{
		Stream: s, MaxPool: streamPool, Timeout: streamTimeout, Logger: NewLogger(log),
	})
	return &Transport{Transport: t, WithPreVote: t, closer: t}
}

// Solo makes the transport of the only replica there is: it speaks to nobody.
func Solo() *Transport {
	_, t := raft.NewInmemTransport(SoloAddr)
	return &Transport{Transport: t, WithPreVote: t, closer: t}
}

// End closes all connections.
func (t *Transport) End() error { return t.closer.Close() }
