package machine

import (
	"bufio"
	"encoding/binary"
	"errors"
	"fmt"
	"io"

	"github.com/google/btree"
	"github.com/hashicorp/raft"

	"github.com/podman-swarm/podman-swarm/internal/hlc"
	"github.com/podman-swarm/podman-swarm/internal/state/ancestry"
	"github.com/podman-swarm/podman-swarm/internal/state/codec"
	"github.com/podman-swarm/podman-swarm/internal/state/tombs"
)

// A snapshot is a header of fixed size, then what follows it, sorted:
//
//	"psw-state"  byte version  uint64 revision, log index, stamp, number of entries
//	since version 2:  uint64 number of tombstones
//	                  uvarint length, lineage
//	since version 3:  uint64 horizon of the tombstones
//	since version 2:  per tombstone, by stamp and key:
//	                  uvarint length of the key, key, uint64 stamp, uvarint revision
//	uvarint length, entry ... by key
//
// Version 2 is still written where the horizon is what that implies, so that a program without reads on
// until the first leap. Whoever stores or sends it adds checksums.
const (
	snapshotMagic   = "psw-state"
	snapshotVersion = 3
	snapshotHeader  = len(snapshotMagic) + 1 + 4*8
)

var errBadSnapshot = errors.New("malformed snapshot")

// image is the state at one moment; making it costs nothing.
type image struct {
	view    *version
	gone    *btree.BTreeG[*tombs.Tomb]
	lineage Lineage
	applied uint64
	stamp   hlc.Stamp
	horizon hlc.Stamp
}

// Snapshot implements raft.FSM. A machine that is stuck has none: Raft would file it as the state after
// entries that are not in it, and drop those from the log.
func (f *Machine) Snapshot() (raft.FSMSnapshot, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.stuck != nil {
		return nil, f.stuck
	}
	return &image{
		view: f.head(), gone: f.tombs.Image(), lineage: f.lineage,
		applied: f.applied, stamp: f.stamp, horizon: f.tombs.Horizon,
	}, nil
}

// Persist implements raft.FSMSnapshot.
func (m *image) Persist(sink raft.SnapshotSink) error {
	if err := m.write(sink); err != nil {
		return errors.Join(err, sink.Cancel())
	}
	return sink.Close()
}

// Release implements raft.FSMSnapshot.
func (m *image) Release() {}

func (m *image) write(to io.Writer) error {
	w := bufio.NewWriterSize(to, 64<<10)
	version := byte(snapshotVersion)
	if m.horizon == m.stamp.Back(tombs.Age) {
		version = 2
	}
	b := append([]byte(snapshotMagic), version)
	head := []uint64{m.view.rev, m.applied, uint64(m.stamp), uint64(m.view.tree.Len()), uint64(m.gone.Len())}
	for _, v := range head {
		b = binary.BigEndian.AppendUint64(b, v)
	}
	body := m.lineage.Append(nil)
	b = append(binary.AppendUvarint(b, uint64(len(body))), body...)
	if version >= 3 {
		b = binary.BigEndian.AppendUint64(b, uint64(m.horizon))
	}
	_, err := w.Write(b)
	m.gone.Ascend(func(t *tombs.Tomb) bool {
		if err == nil {
			b = ancestry.AppendPoint(codec.AppendString(b[:0], t.Key), Point{Stamp: t.Stamp, Revision: t.Revision})
			_, err = w.Write(b)
		}
		return err == nil
	})
	m.view.tree.Ascend(func(it item) bool {
		if err == nil {
			body = it.entry.Append(body[:0])
			_, err = w.Write(append(binary.AppendUvarint(b[:0], uint64(len(body))), body...))
		}
		return err == nil
	})
	return errors.Join(err, w.Flush())
}

// contents is a decoded snapshot.
type contents struct {
	rev, applied uint64
	stamp        hlc.Stamp
	lineage      *Lineage // nil: the snapshot does not say
	live         *tree
	expiry       *expiryTree
	tombs        tombs.Set
}

// readSnapshot decodes a snapshot; every entry has memory of its own.
func readSnapshot(from io.Reader) (*contents, error) {
	r := bufio.NewReaderSize(from, 64<<10)
	head := make([]byte, snapshotHeader)
	if _, err := io.ReadFull(r, head); err != nil || string(head[:len(snapshotMagic)]) != snapshotMagic {
		return nil, fmt.Errorf("%w: no header", errBadSnapshot)
	}
	head = head[len(snapshotMagic):]
	// As long as most snapshots are version 2, the one before that is version 1.
	if err := codec.CheckVersion("snapshot", uint32(head[0]), snapshotVersion); err != nil && head[0] != 1 {
		return nil, err
	}
	num := func(i int) uint64 { return binary.BigEndian.Uint64(head[1+8*i:]) }
	c := &contents{
		rev: num(0), applied: num(1), stamp: hlc.Stamp(num(2)),
		live: newTree(), expiry: newExpiryTree(), tombs: tombs.New(tombs.Max),
	}
	c.tombs.Horizon = c.stamp.Back(tombs.Age)
	if head[0] >= 2 {
		if err := c.readPast(r, head[0]); err != nil {
			return nil, err
		}
	}
	last := ""
	for range num(3) {
		e, err := readEntry(r)
		if err != nil {
			return nil, err
		}
		if e.Key <= last || e.ModRevision > c.rev || c.tombs.Get(e.Key) != nil {
			return nil, fmt.Errorf("%w: entry %q out of order", errBadSnapshot, e.Key)
		}
		last = e.Key
		c.live.ReplaceOrInsert(item{key: e.Key, entry: e})
		c.expiry.add(e)
	}
	if _, err := r.ReadByte(); !errors.Is(err, io.EOF) {
		return nil, fmt.Errorf("%w: more than %d entries", errBadSnapshot, num(3))
	}
	return c, nil
}

// readPast reads what versions after the first added.
func (c *contents) readPast(r *bufio.Reader, version byte) error {
	var n uint64
	if err := binary.Read(r, binary.BigEndian, &n); err != nil || n > tombs.Max {
		return fmt.Errorf("%w: %d tombstones", errBadSnapshot, n)
	}
	body, err := readSized(r, ancestry.MaxLineage)
	if err != nil {
		return err
	}
	l, err := ancestry.DecodeLineage(body)
	if err != nil {
		return fmt.Errorf("%w: %w", errBadSnapshot, err)
	}
	c.lineage = &l
	if version >= 3 {
		implied := c.tombs.Horizon
		if err := binary.Read(r, binary.BigEndian, (*uint64)(&c.tombs.Horizon)); err != nil || c.tombs.Horizon >= implied {
			return fmt.Errorf("%w: horizon", errBadSnapshot)
		}
	}
	last := &tombs.Tomb{}
	for range n {
		key, err := readSized(r, MaxKey)
		if err != nil {
			return err
		}
		t := &tombs.Tomb{Key: string(key)}
		if err := binary.Read(r, binary.BigEndian, (*uint64)(&t.Stamp)); err != nil {
			return fmt.Errorf("%w: cut short", errBadSnapshot)
		}
		if t.Revision, err = binary.ReadUvarint(r); err != nil {
			return fmt.Errorf("%w: cut short", errBadSnapshot)
		}
		if t.Key == "" || t.Stamp < last.Stamp || t.Stamp == last.Stamp && t.Key <= last.Key || c.tombs.Get(t.Key) != nil {
			return fmt.Errorf("%w: tombstone %q out of order", errBadSnapshot, t.Key)
		}
		c.tombs.Add(t)
		last = t
	}
	return nil
}

func readEntry(r *bufio.Reader) (*Entry, error) {
	body, err := readSized(r, maxEntry)
	if err != nil {
		return nil, err
	}
	return DecodeEntry(body)
}

// readSized reads a length and that many bytes. The length is not believed beyond what really
// comes.
func readSized(r *bufio.Reader, limit uint64) ([]byte, error) {
	n, err := binary.ReadUvarint(r)
	if err != nil || n > limit {
		return nil, fmt.Errorf("%w: length", errBadSnapshot)
	}
	body := make([]byte, min(n, 64<<10))
	if _, err := io.ReadFull(r, body); err != nil {
		return nil, fmt.Errorf("%w: cut short", errBadSnapshot)
	}
	if rest := n - uint64(len(body)); rest > 0 {
		more, err := io.ReadAll(io.LimitReader(r, int64(rest)))
		if err != nil || uint64(len(more)) != rest {
			return nil, fmt.Errorf("%w: cut short", errBadSnapshot)
		}
		body = append(body, more...)
	}
	return body, nil
}

// Restore implements raft.FSM: another replica's state replaces this one's. Histories do not
// connect, so every watch is told ErrCompacted.
func (f *Machine) Restore(from io.ReadCloser) error {
	c, err := readSnapshot(from)
	if err != nil {
		return err
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	if c.applied < f.applied {
		return nil // raft restarted under a live state machine that knows more
	}
	f.live, f.expiry, f.tombs = c.live, c.expiry, c.tombs
	if c.lineage != nil {
		f.lineage = *c.lineage
	}
	if c.applied > f.applied {
		f.stuck = nil // what could not be read is in the snapshot
	}
	f.applied, f.stamp = c.applied, c.stamp
	f.clock.Observe(c.stamp)
	f.leap(c.rev)
	f.wakeWaiters()
	f.alarm()
	return nil
}
