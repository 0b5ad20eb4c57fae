package disk

import (
	"bufio"
	"bytes"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"hash"
	"hash/crc32"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"sync"

	"github.com/hashicorp/raft"

	"github.com/podman-swarm/podman-swarm/internal/state/codec"
)

// Snapshots keeps whole states, each in one file:
//
//	"psw-snap"  uint32 version, length  raft.SnapshotMeta as JSON  uint32 crc
//	the state   uint64 its length  uint32 its crc  "end."
//
// It implements raft.SnapshotStore.
type Snapshots struct {
	root, dir string
	log       *slog.Logger
	meta      *Meta

	mu    sync.Mutex
	metas []*raft.SnapshotMeta // newest first
}

const (
	snapMagic   = "psw-snap"
	snapVersion = 1
	snapEnd     = "end."
	snapTrailer = 8 + 4 + len(snapEnd)
	snapSuffix  = ".snap"
	snapKeep    = 2
	maxSnapMeta = 1 << 20
)

// openSnapshots verifies every snapshot.
func openSnapshots(root, dir string, meta *Meta, log *slog.Logger) (*Snapshots, error) {
	s := &Snapshots{root: root, dir: dir, log: log, meta: meta}
	names, err := list(dir, snapSuffix)
	if err != nil {
		return nil, err
	}
	// A name that does not last must not take the place of log entries.
	if err := meta.probe.syncDir(dir); err != nil {
		return nil, err
	}
	for _, name := range names {
		m, body, err := s.open(filepath.Join(dir, name))
		if err != nil {
			return nil, err
		}
		_, err = io.Copy(io.Discard, body)
		if err := errors.Join(err, body.Close()); err != nil {
			return nil, err
		}
		s.metas = append(s.metas, m)
	}
	slices.SortFunc(s.metas, newestFirst)
	if mark := meta.mark(keySnapshotMark); mark > s.newest() {
		return nil, damage(root, dir, "the snapshot of entry %d is missing", mark)
	}
	return s, nil
}

func newestFirst(a, b *raft.SnapshotMeta) int {
	if a.Index != b.Index {
		return int(min(1, max(-1, int64(b.Index)-int64(a.Index))))
	}
	return int(min(1, max(-1, int64(b.Term)-int64(a.Term))))
}

// newest is the newest index that a snapshot covers.
func (s *Snapshots) newest() uint64 {
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.metas) == 0 {
		return 0
	}
	return s.metas[0].Index
}

func (s *Snapshots) path(id string) string { return filepath.Join(s.dir, id+snapSuffix) }

// List implements raft.SnapshotStore.
func (s *Snapshots) List() ([]*raft.SnapshotMeta, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Clone(s.metas), nil
}

// Open implements raft.SnapshotStore. Reading to the end verifies the checksum.
func (s *Snapshots) Open(id string) (*raft.SnapshotMeta, io.ReadCloser, error) {
	return s.open(s.path(id))
}

func (s *Snapshots) open(name string) (_ *raft.SnapshotMeta, _ io.ReadCloser, err error) {
	f, err := os.Open(name)
	if err != nil {
		return nil, nil, err
	}
	defer func() {
		if err != nil {
			_ = f.Close()
		}
	}()
	info, err := f.Stat()
	if err != nil {
		return nil, nil, err
	}
	bad := func(what string) error { return damage(s.root, name, "%s", what) }
	r := bufio.NewReaderSize(f, 64<<10)
	b := make([]byte, len(snapMagic)+8)
	if _, err := io.ReadFull(r, b); err != nil || !bytes.HasPrefix(b, []byte(snapMagic)) {
		return nil, nil, bad("its header is unreadable")
	}
	n := binary.BigEndian.Uint32(b[len(b)-4:])
	if n > maxSnapMeta {
		return nil, nil, bad("its header is unreadable")
	}
	b = append(b, make([]byte, n+4)...)
	if _, err := io.ReadFull(r, b[len(b)-int(n)-4:]); err != nil {
		return nil, nil, bad("its header is cut short")
	}
	sum := len(b) - 4
	if crc(b[:sum]) != binary.BigEndian.Uint32(b[sum:]) {
		return nil, nil, bad("its header's checksum does not match")
	}
	if err := codec.CheckVersion(name, binary.BigEndian.Uint32(b[len(snapMagic):]), snapVersion); err != nil {
		return nil, nil, err
	}
	m := &raft.SnapshotMeta{}
	if err := json.Unmarshal(b[len(snapMagic)+8:sum], m); err != nil {
		return nil, nil, bad("its header is unreadable")
	}
	if m.Size = info.Size() - int64(len(b)) - int64(snapTrailer); m.Size < 0 || s.path(m.ID) != name {
		return nil, nil, bad("it is cut short or renamed")
	}
	return m, &snapReader{f: f, r: r, left: m.Size, size: m.Size, bad: bad, sum: crc32.New(castagnoli())}, nil
}

// snapReader reads the state and, at its end, the trailer.
type snapReader struct {
	f          *os.File
	r          *bufio.Reader
	left, size int64
	sum        hash.Hash32
	bad        func(string) error
}

func (r *snapReader) Read(b []byte) (int, error) {
	if r.left == 0 {
		return 0, r.verify()
	}
	n, err := r.r.Read(b[:min(int64(len(b)), r.left)])
	r.left -= int64(n)
	_, _ = r.sum.Write(b[:n])
	if errors.Is(err, io.EOF) {
		err = r.bad("it is cut short")
	}
	return n, err
}

func (r *snapReader) verify() error {
	if r.bad == nil {
		return io.EOF
	}
	var t [snapTrailer]byte
	if _, err := io.ReadFull(r.r, t[:]); err != nil {
		return r.bad("it is cut short")
	}
	if int64(binary.BigEndian.Uint64(t[:])) != r.size || string(t[12:]) != snapEnd ||
		binary.BigEndian.Uint32(t[8:]) != r.sum.Sum32() {
		return r.bad("its checksum does not match")
	}
	r.bad = nil
	return io.EOF
}

func (r *snapReader) Close() error { return r.f.Close() }

// Create implements raft.SnapshotStore. A snapshot older than the newest one is refused: it is a
// leader's that comes late, the log behind it may be gone, and Raft would go back to it.
func (s *Snapshots) Create(version raft.SnapshotVersion, index, term uint64,
	conf raft.Configuration, confIndex uint64, _ raft.Transport,
) (raft.SnapshotSink, error) {
	if newest := s.newest(); index < newest {
		return nil, fmt.Errorf("a snapshot of entry %d comes after one of %d", index, newest)
	}
	m := &raft.SnapshotMeta{
		Version: version, ID: fmt.Sprintf("%020d-%020d", index, term), Index: index, Term: term,
		Configuration: conf, ConfigurationIndex: confIndex,
	}
	body, err := json.Marshal(m)
	if err != nil {
		return nil, err
	}
	b := append([]byte(snapMagic), 0, 0, 0, snapVersion)
	b = binary.BigEndian.AppendUint32(b, uint32(len(body)))
	b = append(b, body...)
	b = binary.BigEndian.AppendUint32(b, crc(b))
	f, err := os.OpenFile(s.path(m.ID)+tmp, os.O_CREATE|os.O_TRUNC|os.O_WRONLY, fileMode)
	if err != nil {
		return nil, err
	}
	k := &sink{s: s, f: f, meta: m, sum: crc32.New(castagnoli())}
	if _, err := f.Write(b); err != nil {
		return nil, errors.Join(err, k.Cancel())
	}
	return k, nil
}

// sink is a snapshot being written.
type sink struct {
	s    *Snapshots
	f    *os.File
	meta *raft.SnapshotMeta
	sum  hash.Hash32
	over bool
}

func (k *sink) ID() string { return k.meta.ID }

func (k *sink) Write(b []byte) (int, error) {
	if err := k.s.meta.probe.ask(Write, k.f.Name()); err != nil {
		return 0, err
	}
	n, err := k.f.Write(b)
	k.meta.Size += int64(n)
	_, _ = k.sum.Write(b[:n])
	return n, err
}

// Cancel drops the snapshot.
func (k *sink) Cancel() error {
	if k.over {
		return nil
	}
	k.over = true
	return errors.Join(k.f.Close(), os.Remove(k.f.Name()))
}

// Close makes the snapshot durable and drops all but the newest two.
func (k *sink) Close() error {
	if k.over {
		return nil
	}
	t := binary.BigEndian.AppendUint64(nil, uint64(k.meta.Size))
	t = binary.BigEndian.AppendUint32(t, k.sum.Sum32())
	if _, err := k.f.Write(append(t, snapEnd...)); err != nil {
		return errors.Join(err, k.Cancel())
	}
	if err := k.s.meta.probe.sync(k.f); err != nil {
		return errors.Join(err, k.Cancel())
	}
	k.over = true
	if err := k.f.Close(); err != nil {
		return errors.Join(err, os.Remove(k.f.Name()))
	}
	if err := os.Rename(k.f.Name(), k.s.path(k.meta.ID)); err != nil {
		return err
	}
	if err := k.s.meta.probe.syncDir(k.s.dir); err != nil {
		return err
	}
	return k.s.added(k.meta)
}

func (s *Snapshots) added(m *raft.SnapshotMeta) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.metas = slices.DeleteFunc(s.metas, func(o *raft.SnapshotMeta) bool { return o.ID == m.ID })
	s.metas = append(s.metas, m)
	slices.SortFunc(s.metas, newestFirst)
	if err := s.meta.setMark(keySnapshotMark, s.metas[0].Index); err != nil {
		s.log.Warn("the snapshots' low-water mark cannot be stored", "dir", s.dir, "err", err)
	}
	for len(s.metas) > snapKeep {
		last := s.metas[len(s.metas)-1]
		if err := os.Remove(s.path(last.ID)); err != nil {
			s.log.Warn("an old snapshot cannot be removed", "file", s.path(last.ID), "err", err)
		}
		s.metas = s.metas[:len(s.metas)-1]
	}
	return nil
}
