package home

import (
	"bytes"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"io"

	"github.com/hashicorp/raft"

	"github.com/podman-swarm/podman-swarm/internal/state/disk"
	"github.com/podman-swarm/podman-swarm/internal/state/machine"
	"github.com/podman-swarm/podman-swarm/internal/state/raftnet"
)

// Stores is what Raft keeps its log, its vote and its snapshots in, for one lineage.
type Stores struct {
	Current disk.Current
	Logs    raft.LogStore
	Stable  raft.StableStore
	Snaps   raft.SnapshotStore
	disk    *disk.Disk // nil: in memory
}

func onDisk(d *disk.Disk) Stores {
	return Stores{Current: d.Current, Logs: d.Log, Stable: d.Meta, Snaps: d.Snapshots, disk: d}
}

// ID is the replica's name in the lineage.
func (st Stores) ID() raft.ServerID { return raft.ServerID(st.Current.Server) }

// Close closes the files.
func (st Stores) Close() error {
	if st.disk == nil {
		return nil
	}
	return st.disk.Close()
}

// Broken is closed when the stores must be opened again; nil when that never happens.
func (st Stores) Broken() <-chan struct{} {
	if st.disk == nil {
		return nil
	}
	return st.disk.Log.Broken()
}

// LastCommand is the newest index in (after, upTo] that holds a command, 0 when none does.
func (st Stores) LastCommand(after, upTo uint64) uint64 {
	if st.disk != nil {
		return st.disk.Log.LastCommand(after, upTo)
	}
	for i := upTo; i > after; i-- {
		var l raft.Log
		if err := st.Logs.GetLog(i, &l); err == nil && l.Type == raft.LogCommand {
			return i
		}
	}
	return 0
}

// Last is the term and index of the newest entry, in the log or below a snapshot.
func (st Stores) Last() (term, index uint64, err error) {
	snaps, err := st.Snaps.List()
	if err != nil {
		return 0, 0, err
	}
	if len(snaps) > 0 {
		term, index = snaps[0].Term, snaps[0].Index
	}
	end, err := st.Logs.LastIndex()
	if err != nil || end <= index {
		return term, index, err
	}
	var l raft.Log
	err = st.Logs.GetLog(end, &l)
	return l.Term, end, err
}

// Failure is why the stores are broken.
func (st Stores) Failure() error {
	if st.disk == nil {
		return nil
	}
	return st.disk.Log.Failed()
}

// Release ends the wait of a vote for a disk that fails, so that Raft can be stopped.
func (st Stores) Release() {
	if st.disk != nil {
		st.disk.Release()
	}
}

// Break makes the log fail: for injecting faults.
func (st Stores) Break(err error) { st.disk.Log.Fail(err) }

// groupSize is how many entries are replayed at once.
const groupSize = 64

// firstTerm is the term in which a lineage begins.
const firstTerm = 1

// Fill begins a lineage in new stores, with what a machine holds and one replica that has a vote.
// Also the first one begins with a snapshot: in the log, replicas that come later would not find
// where the lineage comes from.
func (st Stores) Fill(m *machine.Machine, index uint64, self raft.Server) error {
	image, err := m.Snapshot()
	if err != nil {
		return err
	}
	defer image.Release()
	conf := raft.Configuration{Servers: []raft.Server{self}}
	sink, err := st.Snaps.Create(raft.SnapshotVersionMax, index, firstTerm, conf, index, raftnet.Solo())
	if err != nil {
		return err
	}
	if err := image.Persist(sink); err != nil {
		return err
	}
	return st.Stable.SetUint64([]byte("CurrentTerm"), firstTerm)
}

// Restore fills a machine before Raft runs: with the newest snapshot, and, when this replica is the
// only voter, with the whole log. Every entry of an only voter's log is committed, since nobody
// else could have been elected to drop it; so reads work at once, and also when the disk is full
// and Raft cannot write the first entry of its term.
func (st Stores) Restore(m *machine.Machine) error {
	members, from, err := st.restoreSnapshot(m)
	if err != nil || st.disk == nil {
		return err
	}
	err = st.disk.Log.Others(from, func(l *raft.Log) error {
		if l.Type == raft.LogConfiguration {
			members = raft.DecodeConfiguration(l.Data)
		}
		return nil
	})
	if err != nil || !OnlyVoter(members, st.ID()) {
		return err
	}
	return st.replay(m, from)
}

// restoreAll fills a machine with everything there is, committed or not.
func (st Stores) restoreAll(m *machine.Machine) error {
	_, from, err := st.restoreSnapshot(m)
	if err != nil {
		return err
	}
	return st.replay(m, from)
}

func (st Stores) restoreSnapshot(m *machine.Machine) (members raft.Configuration, from uint64, err error) {
	snaps, err := st.Snaps.List()
	if err != nil || len(snaps) == 0 {
		return members, 0, err
	}
	_, body, err := st.Snaps.Open(snaps[0].ID)
	if err != nil {
		return members, 0, err
	}
	if err := m.Restore(body); err != nil {
		return members, 0, errors.Join(fmt.Errorf("snapshot %s: %w", snaps[0].ID, err), body.Close())
	}
	return snaps[0].Configuration, snaps[0].Index, body.Close()
}

// replay applies the log entries after an index.
func (st Stores) replay(m *machine.Machine, from uint64) error {
	last, err := st.Logs.LastIndex()
	if err != nil {
		return err
	}
	group := make([]*raft.Log, 0, groupSize)
	for i := from + 1; i <= last; i++ {
		l := new(raft.Log)
		if err := st.Logs.GetLog(i, l); err != nil {
			return err
		}
		if l.Type == raft.LogCommand || l.Type == raft.LogConfiguration {
			group = append(group, l)
		}
		if len(group) == groupSize || i == last {
			m.ApplyBatch(group)
			group = group[:0]
		}
	}
	return m.Stuck()
}

// Whole makes an empty machine a copy of another with the whole log applied, of which the other
// knew only what is committed. The copy can be changed and thrown away while readers go on with the
// other. Raft must not run.
func (st Stores) Whole(of, into *machine.Machine) error {
	snaps, err := st.Snaps.List()
	if err != nil {
		return err
	}
	if len(snaps) > 0 && snaps[0].Index > of.Applied() { // it did not get that one any more
		return st.restoreAll(into)
	}
	if err := Copy(of, into); err != nil {
		return err
	}
	return st.replay(into, of.Applied())
}

// Copy makes an empty machine a copy of another.
func Copy(of, into *machine.Machine) error {
	var b bytes.Buffer
	if err := Dump(of, &b); err != nil {
		return err
	}
	return into.Restore(io.NopCloser(&b))
}

// sink makes any writer one that snapshots are written to.
type sink struct{ io.Writer }

func (sink) ID() string    { return "" }
func (sink) Cancel() error { return nil }
func (sink) Close() error  { return nil }

// Dump writes a machine's state.
func Dump(m *machine.Machine, w io.Writer) error {
	image, err := m.Snapshot()
	if err != nil {
		return err
	}
	defer image.Release()
	return image.Persist(sink{w})
}

// OnlyVoter reports whether a replica is the only voter of a configuration.
func OnlyVoter(c raft.Configuration, id raft.ServerID) bool {
	voters, mine := 0, false
	for _, s := range c.Servers {
		if s.Suffrage == raft.Voter {
			voters++
			mine = mine || s.ID == id
		}
	}
	return voters == 1 && mine
}

// RandomName returns a name that nothing else has.
func RandomName(bytes int) string {
	b := make([]byte, bytes)
	_, _ = rand.Read(b) // never fails
	return hex.EncodeToString(b)
}
