package disk

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"runtime"
	"sync"
	"time"

	"github.com/podman-swarm/podman-swarm/internal/state/codec"
)

// Meta is the small facts that must survive: Raft's term and vote, and the low-water marks of log
// and snapshots. It implements raft.StableStore.
//
// The file holds two equal copies in blocks of their own, written in place one after the other,
// each synced: whichever one a crash or a bad sector destroys, the other is right. Writing in
// place needs no free space, so a vote can be cast on a full disk.
type Meta struct {
	log   *slog.Logger
	file  *os.File
	probe Probe
	done  chan struct{} // closed by Close

	mu      sync.Mutex
	seq     uint64
	values  map[string][]byte
	dirty   bool // a write failed half way: the file may hold newer values than these
	patient bool
	release sync.Once
}

const (
	metaMagic   = "psw-meta"
	metaVersion = 1
	metaBlock   = 4096
	metaHead    = len(metaMagic) + 4 + 8 + 4 // magic, version, sequence, length of the body
	metaRetry   = 200 * time.Millisecond

	keyLogMark      = "LogMark"
	keySnapshotMark = "SnapshotMark"
)

// createMeta makes an empty meta file.
func createMeta(name string, probe Probe, log *slog.Logger) (*Meta, error) {
	m := &Meta{log: log, probe: probe, values: map[string][]byte{}, done: make(chan struct{})}
	block, err := m.encode(m.values)
	if err != nil {
		return nil, err
	}
	if err := probe.replaceFile(name, append(block, block...)); err != nil {
		return nil, err
	}
	m.file, err = os.OpenFile(name, os.O_RDWR, fileMode)
	return m, err
}

// openMeta reads the meta file and mends it when one copy is unreadable.
func openMeta(root, name string, probe Probe, log *slog.Logger) (*Meta, error) {
	f, err := os.OpenFile(name, os.O_RDWR, fileMode)
	if errors.Is(err, os.ErrNotExist) {
		return nil, damage(root, name, "it is missing")
	} else if err != nil {
		return nil, err
	}
	m := &Meta{log: log, file: f, probe: probe, done: make(chan struct{})}
	if err := m.load(root, name); err != nil {
		return nil, errors.Join(err, f.Close())
	}
	return m, nil
}

func (m *Meta) load(root, name string) error {
	raw, err := io.ReadAll(io.LimitReader(m.file, 2*metaBlock+1))
	if err != nil {
		return err
	}
	var defects [2]error
	for i := range defects {
		var block []byte
		if len(raw) >= (i+1)*metaBlock {
			block = raw[i*metaBlock : (i+1)*metaBlock]
		}
		var seq uint64
		var values map[string][]byte
		if seq, values, defects[i] = decodeMeta(name, block); defects[i] != nil {
			continue
		}
		if m.values == nil || seq > m.seq {
			m.seq, m.values = seq, values
		}
	}
	var version *versionError
	switch {
	case errors.As(errors.Join(defects[:]...), &version):
		return version.error
	case m.values == nil:
		return damage(root, name, "both copies are unreadable (%v)", defects[0])
	case defects[0] != nil || defects[1] != nil || len(raw) != 2*metaBlock:
		m.log.Warn("one of two copies was unreadable and is mended, nothing is lost", "file", name)
		return m.write(m.values)
	}
	return nil
}

// versionError tells a newer file apart from a damaged one.
type versionError struct{ error }

func (m *Meta) encode(values map[string][]byte) ([]byte, error) {
	b := make([]byte, metaHead, metaBlock)
	for k, v := range values {
		b = binary.AppendUvarint(b, uint64(len(k)))
		b = append(b, k...)
		b = binary.AppendUvarint(b, uint64(len(v)))
		b = append(b, v...)
	}
	if len(b)+4 > metaBlock {
		return nil, fmt.Errorf("meta file: %d bytes do not fit into %d", len(b), metaBlock)
	}
	copy(b, metaMagic)
	h := b[len(metaMagic):]
	binary.BigEndian.PutUint32(h, metaVersion)
	binary.BigEndian.PutUint64(h[4:], m.seq)
	binary.BigEndian.PutUint32(h[12:], uint32(len(b)-metaHead))
	b = binary.BigEndian.AppendUint32(b, crc(b))
	return b[:metaBlock], nil // the rest of the block is zero
}

var errMeta = errors.New("checksum mismatch")

func decodeMeta(name string, b []byte) (uint64, map[string][]byte, error) {
	if len(b) != metaBlock || !bytes.HasPrefix(b, []byte(metaMagic)) {
		return 0, nil, errors.New("cut short or no header")
	}
	h := b[len(metaMagic):]
	n := int(binary.BigEndian.Uint32(h[12:]))
	if n > metaBlock-metaHead-4 {
		return 0, nil, errMeta
	}
	end := metaHead + n
	if crc(b[:end]) != binary.BigEndian.Uint32(b[end:]) {
		return 0, nil, errMeta
	}
	if err := codec.CheckVersion(name, binary.BigEndian.Uint32(h), metaVersion); err != nil {
		return 0, nil, &versionError{err}
	}
	values := map[string][]byte{}
	for rest := b[metaHead:end]; len(rest) > 0; {
		var key, value []byte
		var ok, ok2 bool
		key, rest, ok = field(rest)
		value, rest, ok2 = field(rest)
		if !ok || !ok2 {
			return 0, nil, errMeta
		}
		values[string(key)] = bytes.Clone(value)
	}
	return binary.BigEndian.Uint64(h[4:]), values, nil
}

// field takes a length and that many bytes off b.
func field(b []byte) (value, rest []byte, ok bool) {
	n, w := binary.Uvarint(b)
	if w <= 0 || n > uint64(len(b)-w) {
		return nil, nil, false
	}
	b = b[w:]
	return b[:n], b[n:], true
}

// write puts values on disk and takes them over. Called with the lock held or before sharing.
func (m *Meta) write(values map[string][]byte) error {
	m.seq++
	block, err := m.encode(values)
	if err != nil {
		return err
	}
	m.dirty = true
	for i := range int64(2) {
		if err := m.probe.ask(Write, m.file.Name()); err != nil {
			return err
		}
		if _, err := m.file.WriteAt(block, i*metaBlock); err != nil {
			return err
		}
		if err := m.probe.datasync(m.file); err != nil {
			return err
		}
	}
	m.values, m.dirty = values, false
	return nil
}

func (m *Meta) set(key string, value []byte) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if old, ok := m.values[key]; ok && bytes.Equal(old, value) && !m.dirty {
		return nil
	}
	values := make(map[string][]byte, len(m.values)+1)
	for k, v := range m.values {
		values[k] = v
	}
	values[key] = bytes.Clone(value)
	return m.write(values)
}

// Set implements raft.StableStore. Raft must not act on a term or vote that is not on disk, and
// panics when it cannot be stored; so on a disk that fails this waits until it works again. Reads
// go on meanwhile, elections wait. When the replica is closed first, the calling goroutine, which
// is Raft's, ends here.
func (m *Meta) Set(key, value []byte) error {
	for warned := false; ; {
		err := m.set(string(key), value)
		if err == nil || !m.waits() {
			return err
		}
		if !warned {
			m.log.Error("term and vote cannot be stored, elections wait", "file", m.file.Name(), "err", err)
			warned = true
		}
		select {
		case <-m.done:
			runtime.Goexit()
		case <-time.After(metaRetry):
		}
	}
}

func (m *Meta) waits() bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.patient
}

var errNotFound = errors.New("not found") // the text Raft looks for

// Get implements raft.StableStore.
func (m *Meta) Get(key []byte) ([]byte, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if v, ok := m.values[string(key)]; ok {
		return v, nil
	}
	return nil, errNotFound
}

// SetUint64 implements raft.StableStore.
func (m *Meta) SetUint64(key []byte, value uint64) error {
	return m.Set(key, binary.BigEndian.AppendUint64(nil, value))
}

// GetUint64 implements raft.StableStore.
func (m *Meta) GetUint64(key []byte) (uint64, error) {
	v, err := m.Get(key)
	if err != nil {
		return 0, err
	}
	if len(v) != 8 {
		return 0, fmt.Errorf("meta %s: %d bytes, want 8", key, len(v))
	}
	return binary.BigEndian.Uint64(v), nil
}

// mark returns a low-water mark, 0 when it was never set.
func (m *Meta) mark(key string) uint64 {
	v, err := m.GetUint64([]byte(key))
	if err != nil {
		return 0
	}
	return v
}

// setMark stores a low-water mark without patience.
func (m *Meta) setMark(key string, value uint64) error {
	return m.set(key, binary.BigEndian.AppendUint64(nil, value))
}

func (m *Meta) close() error {
	m.impatient()
	return m.file.Close()
}

// impatient ends the wait of Set.
func (m *Meta) impatient() { m.release.Do(func() { close(m.done) }) }
