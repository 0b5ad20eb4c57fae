package state

import (
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"

	"github.com/hashicorp/raft"

	"github.com/podman-swarm/podman-swarm/internal/state/disk"
)

// stores is what Raft keeps its log, its vote and its snapshots in.
type stores struct {
	id     raft.ServerID
	logs   raft.LogStore
	stable raft.StableStore
	snaps  raft.SnapshotStore
	disk   *disk.Disk // nil: in memory
}

func (st stores) close() error {
	if st.disk == nil {
		return nil
	}
	return st.disk.Close()
}

// broken is closed when the stores must be opened again; nil when that never happens.
func (st stores) broken() <-chan struct{} {
	if st.disk == nil {
		return nil
	}
	return st.disk.Log.Broken()
}

// lastCommand is the newest index in (after, upTo] that holds a command, 0 when none does.
func (st stores) lastCommand(after, upTo uint64) uint64 {
	if st.disk != nil {
		return st.disk.Log.LastCommand(after, upTo)
	}
	for i := upTo; i > after; i-- {
		var l raft.Log
		if err := st.logs.GetLog(i, &l); err == nil && l.Type == raft.LogCommand {
			return i
		}
	}
	return 0
}

// openStores opens the stores of a replica and begins new ones where there is nothing.
func openStores(cfg Config) (stores, error) {
	if cfg.Dir == "" {
		mem := raft.NewInmemStore()
		st := stores{id: raft.ServerID(cfg.NodeID), logs: mem, stable: mem, snaps: raft.NewInmemSnapshotStore()}
		return st, bootstrap(cfg, st)
	}
	fresh, err := newCurrent(cfg)
	if err != nil {
		return stores{}, err
	}
	d, err := disk.Open(disk.Config{
		Dir: cfg.Dir, Log: cfg.Log, New: fresh, Segment: cfg.segment,
		Init: func(d *disk.Disk) error { return bootstrap(cfg, onDisk(d)) },
	})
	if err != nil {
		return stores{}, err
	}
	return onDisk(d), nil
}

func onDisk(d *disk.Disk) stores {
	return stores{id: raft.ServerID(d.Current.Server), logs: d.Log, stable: d.Meta, snaps: d.Snapshots, disk: d}
}

// newCurrent names a new lineage and this replica in it.
func newCurrent(cfg Config) (disk.Current, error) {
	c := disk.Current{Lineage: cfg.Lineage, Server: cfg.NodeID}
	if cfg.Members == nil {
		c.Server += "." + randomName(4)
	} else if cfg.Lineage == "" {
		return c, errors.New("a new lineage of several members needs a name")
	}
	if c.Lineage == "" {
		c.Lineage = randomName(8)
	}
	return c, nil
}

func randomName(bytes int) string {
	b := make([]byte, bytes)
	_, _ = rand.Read(b) // never fails
	return hex.EncodeToString(b)
}

// bootstrap writes the first entry of a new lineage: its members.
func bootstrap(cfg Config, st stores) error {
	members := cfg.Members
	if members == nil {
		self := Member{ID: string(st.id), Addr: soloAddr}
		if cfg.Stream != nil {
			self.Addr = cfg.Stream.Addr().String()
		}
		members = []Member{self}
	}
	var servers raft.Configuration
	for _, m := range members {
		servers.Servers = append(servers.Servers, raft.Server{ID: raft.ServerID(m.ID), Address: raft.ServerAddress(m.Addr)})
	}
	c := raft.DefaultConfig()
	c.LocalID, c.Logger = st.id, newBridge(cfg.Log)
	return raft.BootstrapCluster(c, st.logs, st.stable, st.snaps, nil, servers)
}

// restore fills the state machine before Raft runs: with the newest snapshot, and, when this
// replica is the only voter, with the whole log. Every entry of an only voter's log is committed,
// since nobody else could have been elected to drop it; so reads work at once, and also when the
// disk is full and Raft cannot write the first entry of its term.
func (s *Store) restore(st stores) error {
	snaps, err := st.snaps.List()
	if err != nil {
		return err
	}
	var members raft.Configuration
	var from uint64
	if len(snaps) > 0 {
		members, from = snaps[0].Configuration, snaps[0].Index
		if err := s.restoreSnapshot(st.snaps, snaps[0].ID); err != nil {
			return err
		}
	}
	if st.disk == nil {
		return nil
	}
	err = st.disk.Log.Others(from, func(l *raft.Log) error {
		if l.Type == raft.LogConfiguration {
			members = raft.DecodeConfiguration(l.Data)
		}
		return nil
	})
	if err != nil || !onlyVoter(members, st.id) {
		return err
	}
	return s.replay(st.logs, from)
}

func (s *Store) restoreSnapshot(snaps raft.SnapshotStore, id string) error {
	_, body, err := snaps.Open(id)
	if err != nil {
		return err
	}
	if err := s.fsm.Restore(body); err != nil {
		return errors.Join(fmt.Errorf("snapshot %s: %w", id, err), body.Close())
	}
	return body.Close()
}

// replay applies the log entries after an index.
func (s *Store) replay(logs raft.LogStore, from uint64) error {
	last, err := logs.LastIndex()
	if err != nil {
		return err
	}
	group := make([]*raft.Log, 0, groupSize)
	for i := from + 1; i <= last; i++ {
		l := new(raft.Log)
		if err := logs.GetLog(i, l); err != nil {
			return err
		}
		if l.Type == raft.LogCommand || l.Type == raft.LogConfiguration {
			group = append(group, l)
		}
		if len(group) == groupSize || i == last {
			s.fsm.ApplyBatch(group)
			group = group[:0]
		}
	}
	return s.fsm.Stuck()
}

// onlyVoter reports whether a replica is the only voter of a configuration.
func onlyVoter(c raft.Configuration, id raft.ServerID) bool {
	voters, mine := 0, false
	for _, s := range c.Servers {
		if s.Suffrage == raft.Voter {
			voters++
			mine = mine || s.ID == id
		}
	}
	return voters == 1 && mine
}
