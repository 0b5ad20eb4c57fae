package state

import (
	"io"
	"time"

	"github.com/hashicorp/raft"
)

// transport is Raft's transport without its Close: it belongs to the Store and serves every run of
// Raft in it.
type transport struct {
	raft.Transport
	raft.WithPreVote
	closer io.Closer
}

const (
	soloAddr      = "local"
	streamTimeout = 10 * time.Second
	streamPool    = 3
)

// newTransport speaks over Config.Stream, or to nobody.
func newTransport(cfg Config) transport {
	if cfg.Stream == nil {
		_, t := raft.NewInmemTransport(soloAddr)
		return transport{Transport: t, WithPreVote: t, closer: t}
	}
	t := raft.NewNetworkTransportWithConfig(&raft.NetworkTransportConfig{
		Stream: cfg.Stream, MaxPool: streamPool, Timeout: streamTimeout, Logger: newBridge(cfg.Log),
	})
	return transport{Transport: t, WithPreVote: t, closer: t}
}

func (t transport) close() error { return t.closer.Close() }
