package disk

import (
	"bufio"
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"log/slog"
	"os"
	"strconv"
	"strings"

	"github.com/hashicorp/raft"

	"github.com/podman-swarm/podman-swarm/internal/state/codec"
)

// logConfig says where a log is and what is known about it.
type logConfig struct {
	root, dir string
	log       *slog.Logger
	meta      *Meta
	snaps     *Snapshots
	size      int64
}

// openLog reads the whole log. What was never acknowledged is dropped; anything else amiss is a
// DamageError.
func openLog(c logConfig) (*Log, error) {
	l := newLog(c)
	if err := l.load(); err != nil {
		for _, s := range l.segs {
			_ = s.file.Close()
		}
		return nil, err
	}
	return l, nil
}

func newLog(c logConfig) *Log {
	return &Log{
		root: c.root, dir: c.dir, log: c.log, meta: c.meta, snaps: c.snaps, size: c.size, broken: make(chan struct{}),
	}
}

func (l *Log) load() error {
	names, err := list(l.dir, segmentSuffix)
	if err != nil {
		return err
	}
	for i, name := range names {
		next := uint64(0) // the first index of the following segment; 0: this one is the last
		if i+1 < len(names) {
			if next, err = baseOf(names[i+1]); err != nil {
				return damage(l.root, l.path(names[i+1]), "no log file has such a name")
			}
		}
		s, err := l.openSegment(name)
		if err != nil {
			return err
		}
		l.segs = append(l.segs, s)
		if err := l.scan(s, next); err != nil {
			return err
		}
	}
	if err := l.plausible(); err != nil {
		return err
	}
	return l.settle()
}

// settle makes durable what was read. A process that ended before it could sync, or after that had
// failed, leaves pages that say more than the disk does; after a failure the kernel takes them for
// written, so that syncing them again does nothing. They are written again, as far as it is not
// known that they were synced: only the last file holds such.
// Source: Rebello et al., "Can Applications Recover from fsync Failures?", 2020.
func (l *Log) settle() error {
	if n := len(l.segs); n > 0 {
		if err := l.segs[n-1].rewrite(l.meta.mark(keyLogMark) + 1); err != nil {
			return err
		}
	}
	return l.meta.probe.syncDir(l.dir)
}

// plausible compares the log with what is known from elsewhere.
func (l *Log) plausible() error {
	mark, snapshot := l.meta.mark(keyLogMark), l.snaps.newest()
	if last := l.last(); last < mark && snapshot < mark {
		name, after := l.dir, "it is empty"
		if n := len(l.segs); n > 0 {
			after = fmt.Sprintf("%s ends at entry %d", l.segs[n-1].file.Name(), last)
			// Cut short, or whole and followed by a file that is gone?
			if info, err := l.segs[n-1].file.Stat(); err == nil && info.Size() < l.size {
				name = l.segs[n-1].file.Name()
			}
		}
		return damage(l.root, name, "%s, but entry %d had been acknowledged", after, mark)
	}
	if first := l.first(); first > snapshot+1 {
		return damage(l.root, l.dir, "entries %d to %d are missing: the log begins after them, the snapshots end before",
			snapshot+1, first-1)
	}
	if last := l.last(); last != 0 && last < snapshot {
		// A crash came between taking over another replica's snapshot and dropping the old log.
		if err := l.meta.setMark(keyLogMark, 0); err != nil {
			return err
		}
		return l.dropFrom(l.first())
	}
	return nil
}

func baseOf(name string) (uint64, error) {
	return strconv.ParseUint(strings.TrimSuffix(name, segmentSuffix), 10, 64)
}

func (l *Log) openSegment(name string) (*segment, error) {
	base, err := baseOf(name)
	if err != nil || segmentName(base) != name {
		return nil, damage(l.root, l.path(name), "no log file has such a name")
	}
	f, err := os.OpenFile(l.path(name), os.O_RDWR, fileMode)
	if err != nil {
		return nil, err
	}
	b := make([]byte, segmentHead)
	if _, err := f.ReadAt(b, 0); err != nil && !errors.Is(err, io.EOF) {
		return nil, errors.Join(err, f.Close())
	}
	s := &segment{file: f, probe: l.meta.probe, base: base, tail: int64(segmentHead)}
	sum := len(b) - 4
	switch {
	case !bytes.HasPrefix(b, []byte(segmentMagic)),
		crc(b[:sum]) != binary.BigEndian.Uint32(b[sum:]), binary.BigEndian.Uint64(b[16:]) != base:
		err = damage(l.root, f.Name(), "its header is unreadable")
	default:
		err = codec.CheckVersion(f.Name(), binary.BigEndian.Uint32(b[8:]), segmentVersion)
		s.salt = binary.BigEndian.Uint32(b[12:])
	}
	if err != nil {
		return nil, errors.Join(err, f.Close())
	}
	return s, nil
}

// scan reads the records of a segment, up to the one before next.
func (l *Log) scan(s *segment, next uint64) error {
	r := bufio.NewReaderSize(io.NewSectionReader(s.file, s.tail, 1<<62), 64<<10)
	for next == 0 || s.last()+1 < next {
		h, ok, err := s.scanRecord(r)
		if err != nil {
			return err
		}
		if !ok {
			return l.scanEnd(s, next)
		}
		s.add(s.tail, raft.LogType(h.kind))
		s.tail += recordHead + int64(h.data) + int64(h.ext)
	}
	return nil
}

// scanRecord reads the record at the tail; false when there is no sound one.
func (s *segment) scanRecord(r *bufio.Reader) (head, bool, error) {
	var b [recordHead]byte
	if _, err := io.ReadFull(r, b[:]); err != nil {
		return head{}, false, notEOF(err)
	}
	h, ok := s.decodeHead(b[:])
	if !ok || h.index != s.last()+1 {
		return head{}, false, nil
	}
	sum := crc32.Update(0, castagnoli(), b[8:])
	for n := int64(h.data) + int64(h.ext); n > 0; {
		part, err := r.Peek(int(min(n, 32<<10)))
		if err != nil {
			return head{}, false, notEOF(err)
		}
		sum = crc32.Update(sum, castagnoli(), part)
		n -= int64(len(part))
		_, _ = r.Discard(len(part)) // just peeked
	}
	return h, sum == h.bodyCRC, nil
}

func notEOF(err error) error {
	if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
		return nil
	}
	return err
}

// scanEnd decides what it means that no sound record is at the tail: the end of the log, a write
// that was cut off, or damage. A group of records is written only after the one before is on disk,
// so a sound record of a later group proves that the tail once held an acknowledged one.
func (l *Log) scanEnd(s *segment, next uint64) error {
	expect := s.last() + 1
	if next != 0 {
		// A whole file without another record means that it was followed by a file that is gone.
		rest, err := io.ReadAll(io.NewSectionReader(s.file, s.tail, 1<<62))
		if err == nil && s.tail+int64(len(rest)) >= l.size && len(bytes.TrimLeft(rest, "\x00")) == 0 {
			return damage(l.root, l.path(segmentName(expect)), "it is missing")
		}
		return damage(l.root, s.file.Name(), "entry %d at byte %d is unreadable", expect, s.tail)
	}
	rest, err := io.ReadAll(io.NewSectionReader(s.file, s.tail, 1<<62))
	if err != nil {
		return err
	}
	if len(bytes.TrimLeft(rest, "\x00")) == 0 {
		return nil
	}
	for off := 1; off+recordHead <= len(rest); off++ {
		// Cheap test first: no later index can be further away than there are bytes.
		index := binary.BigEndian.Uint64(rest[off+8:])
		if index <= expect || index > expect+uint64(len(rest)) {
			continue
		}
		if h, ok := s.decodeHead(rest[off:]); ok && h.index-uint64(h.position) > expect {
			return damage(l.root, s.file.Name(), "entry %d at byte %d is unreadable, entry %d after it is not",
				expect, s.tail, h.index)
		}
	}
	if mark := l.meta.mark(keyLogMark); mark >= expect {
		return damage(l.root, s.file.Name(), "entry %d at byte %d is unreadable and had been acknowledged (up to %d)",
			expect, s.tail, mark)
	}
	l.log.Warn("an unfinished write at the end of the log is dropped, it was never acknowledged",
		"file", s.file.Name(), "entry", expect, "offset", s.tail)
	return s.cut(expect, l.size)
}
