package machine

import (
	"bufio"
	"encoding/binary"
	"errors"
	"fmt"
	"io"

	"github.com/hashicorp/raft"

	"github.com/podman-swarm/podman-swarm/internal/hlc"
	"github.com/podman-swarm/podman-swarm/internal/state/codec"
)

// A snapshot is a header of fixed size, then every entry in key order behind its length:
//
//	"psw-state"  byte version  uint64 revision, log index, stamp, number of entries
//	uvarint length, entry ...
//
// Whoever stores or sends it adds checksums.
const (
	snapshotMagic   = "psw-state"
	snapshotVersion = 1
	snapshotHeader  = len(snapshotMagic) + 1 + 4*8
)

var errBadSnapshot = errors.New("malformed snapshot")

// image is the state at one moment; making it costs nothing.
type image struct {
	view    *version
	applied uint64
	stamp   hlc.Stamp
}

// Snapshot implements raft.FSM.
func (f *Machine) Snapshot() (raft.FSMSnapshot, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	return &image{view: f.head(), applied: f.applied, stamp: f.stamp}, nil
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
	b := append([]byte(snapshotMagic), snapshotVersion)
	for _, v := range []uint64{m.view.rev, m.applied, uint64(m.stamp), uint64(m.view.tree.Len())} {
		b = binary.BigEndian.AppendUint64(b, v)
	}
	if _, err := w.Write(b); err != nil {
		return err
	}
	var err error
	var body []byte
	m.view.tree.Ascend(func(it item) bool {
		body = it.entry.Append(body[:0])
		b = binary.AppendUvarint(b[:0], uint64(len(body)))
		if _, err = w.Write(b); err == nil {
			_, err = w.Write(body)
		}
		return err == nil
	})
	return errors.Join(err, w.Flush())
}

// contents is a decoded snapshot.
type contents struct {
	rev, applied uint64
	stamp        hlc.Stamp
	live         *tree
	expiry       *expiryTree
}

// readSnapshot decodes a snapshot; every entry has memory of its own.
func readSnapshot(from io.Reader) (*contents, error) {
	r := bufio.NewReaderSize(from, 64<<10)
	head := make([]byte, snapshotHeader)
	if _, err := io.ReadFull(r, head); err != nil || string(head[:len(snapshotMagic)]) != snapshotMagic {
		return nil, fmt.Errorf("%w: no header", errBadSnapshot)
	}
	head = head[len(snapshotMagic):]
	if err := codec.CheckVersion("snapshot", uint32(head[0]), snapshotVersion); err != nil {
		return nil, err
	}
	num := func(i int) uint64 { return binary.BigEndian.Uint64(head[1+8*i:]) }
	c := &contents{rev: num(0), applied: num(1), stamp: hlc.Stamp(num(2)), live: newTree(), expiry: newExpiryTree()}
	last := ""
	for range num(3) {
		e, err := readEntry(r)
		if err != nil {
			return nil, err
		}
		if e.Key <= last || e.ModRevision > c.rev {
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

func readEntry(r *bufio.Reader) (*Entry, error) {
	n, err := binary.ReadUvarint(r)
	if err != nil || n > maxEntry {
		return nil, fmt.Errorf("%w: entry length", errBadSnapshot)
	}
	body := make([]byte, min(n, 64<<10))
	if _, err := io.ReadFull(r, body); err != nil {
		return nil, fmt.Errorf("%w: cut short", errBadSnapshot)
	}
	// The length is not believed beyond what really comes.
	if rest := n - uint64(len(body)); rest > 0 {
		more, err := io.ReadAll(io.LimitReader(r, int64(rest)))
		if err != nil || uint64(len(more)) != rest {
			return nil, fmt.Errorf("%w: cut short", errBadSnapshot)
		}
		body = append(body, more...)
	}
	return DecodeEntry(body)
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
	f.live, f.expiry = c.live, c.expiry
	f.applied, f.stamp = c.applied, c.stamp
	f.rev.Store(c.rev)
	f.clock.Observe(c.stamp)
	f.hist.reset(c.rev)
	f.views = viewCache{}
	f.current.Store(nil)
	f.watches.epoch++
	f.watches.wakeAll()
	f.wakeWaiters()
	f.alarm()
	return nil
}
