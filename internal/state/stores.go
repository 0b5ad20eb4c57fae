package state

import (
	"github.com/hashicorp/raft"
)

// stores is what Raft keeps its log, its vote and its snapshots in.
type stores struct {
	id     raft.ServerID
	logs   raft.LogStore
	stable raft.StableStore
	snaps  raft.SnapshotStore
	close  func() error
}

// openStores opens the stores of a replica and begins a new one where there is nothing.
func openStores(cfg Config) (stores, error) {
	mem := raft.NewInmemStore()
	st := stores{
		id: raft.ServerID(cfg.NodeID), logs: mem, stable: mem,
		snaps: raft.NewInmemSnapshotStore(), close: func() error { return nil },
	}
	c := raft.DefaultConfig()
	c.LocalID, c.Logger = st.id, newBridge(cfg.Log)
	_, t := raft.NewInmemTransport(soloAddr)
	return st, raft.BootstrapCluster(c, mem, mem, st.snaps, t, firstMembers(cfg))
}

// firstMembers is the configuration that a new store begins with.
func firstMembers(cfg Config) raft.Configuration {
	members := cfg.Members
	if members == nil {
		members = []Member{{ID: cfg.NodeID, Addr: soloAddr}}
	}
	var c raft.Configuration
	for _, m := range members {
		c.Servers = append(c.Servers, raft.Server{ID: raft.ServerID(m.ID), Address: raft.ServerAddress(m.Addr)})
	}
	return c
}
