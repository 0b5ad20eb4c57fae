package disk

import (
	"crypto/rand"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"os"
	"path/filepath"
	"time"

	"github.com/hashicorp/raft"
)

// A segment is a file of log entries with consecutive indexes. Its header is
//
//	"pswrmlog"  uint32 version, salt  uint64 base (index of the first entry)  uint32 crc
//
// and an entry is a record of fixed head and free body:
//
//	 0 uint32 crc of the head below, begun with the segment's salt
//	 4 uint32 crc of the body, begun with the crc of the head's fields 8-44
//	 8 uint64 index, term   24 int64 time of appending (Unix ns)
//	32 uint32 length of data, of extensions
//	40 uint32 position in the group that was written and synced as one
//	44 byte   type, 3 zero bytes, then data and extensions
//
// Room is reserved ahead and reads as zeros, which no record begins with. The salt keeps values
// that look like records from being taken for some.
type segment struct {
	file  *os.File
	probe Probe
	base  uint64
	salt  uint32
	offs  []uint32 // of every entry; commands have the top bit set
	tail  int64    // where the next record goes
}

const (
	segmentMagic   = "pswrmlog"
	segmentVersion = 1
	segmentHead    = len(segmentMagic) + 4 + 4 + 8 + 4
	segmentSuffix  = ".log"
	recordHead     = 48
	commandFlag    = 1 << 31
)

func segmentName(base uint64) string { return fmt.Sprintf("%020d%s", base, segmentSuffix) }

// last is the index of the newest entry; base-1 when there is none.
func (s *segment) last() uint64 { return s.base + uint64(len(s.offs)) - 1 }

func (s *segment) offset(index uint64) int64 {
	return int64(s.offs[index-s.base] &^ commandFlag)
}

// createSegment makes an empty segment with room for size bytes.
func createSegment(probe Probe, dir string, base uint64, size int64) (s *segment, err error) {
	name := filepath.Join(dir, segmentName(base))
	if err := probe.ask(Write, name); err != nil {
		return nil, err
	}
	f, err := os.OpenFile(name+tmp, os.O_CREATE|os.O_TRUNC|os.O_RDWR, fileMode)
	if err != nil {
		return nil, err
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, f.Close(), os.RemoveAll(name+tmp))
		}
	}()
	if err := allocate(f, size); err != nil {
		return nil, err
	}
	var salt [4]byte
	_, _ = rand.Read(salt[:]) // never fails
	b := append([]byte(segmentMagic), 0, 0, 0, segmentVersion)
	b = append(b, salt[:]...)
	b = binary.BigEndian.AppendUint64(b, base)
	b = binary.BigEndian.AppendUint32(b, crc(b))
	if _, err := f.WriteAt(b, 0); err != nil {
		return nil, err
	}
	if err := probe.sync(f); err != nil {
		return nil, err
	}
	if err := os.Rename(name+tmp, name); err != nil {
		return nil, err
	}
	// From here on the file is part of the log: going on without it would be read as damage.
	if err := probe.syncDir(dir); err != nil {
		return nil, unknown(err)
	}
	// The handle keeps the temporary name; errors should name the file that is there.
	named, err := os.OpenFile(name, os.O_RDWR, fileMode)
	if err != nil {
		return nil, unknown(err)
	}
	_ = f.Close()
	return &segment{file: named, probe: probe, base: base, salt: binary.BigEndian.Uint32(salt[:]), tail: int64(segmentHead)}, nil
}

// head is the fixed part of a record.
type head struct {
	index, term uint64
	at          int64
	data, ext   uint32
	position    uint32
	kind        uint8
	bodyCRC     uint32
}

// appendRecord encodes an entry as number position of its group.
func (s *segment) appendRecord(b []byte, l *raft.Log, position int) []byte {
	start := len(b)
	b = append(b, make([]byte, recordHead)...)
	h := b[start:]
	binary.BigEndian.PutUint64(h[8:], l.Index)
	binary.BigEndian.PutUint64(h[16:], l.Term)
	if !l.AppendedAt.IsZero() {
		binary.BigEndian.PutUint64(h[24:], uint64(l.AppendedAt.UnixNano()))
	}
	binary.BigEndian.PutUint32(h[32:], uint32(len(l.Data)))
	binary.BigEndian.PutUint32(h[36:], uint32(len(l.Extensions)))
	binary.BigEndian.PutUint32(h[40:], uint32(position))
	h[44] = uint8(l.Type)
	b = append(append(b, l.Data...), l.Extensions...)
	h = b[start:]
	body := crc32.Update(crc32.Update(0, castagnoli(), h[8:recordHead]), castagnoli(), h[recordHead:])
	binary.BigEndian.PutUint32(h[4:], body)
	binary.BigEndian.PutUint32(h, crc32.Update(s.salt, castagnoli(), h[4:recordHead]))
	return b
}

// decodeHead reads the head of a record; false when it is none.
func (s *segment) decodeHead(b []byte) (head, bool) {
	if binary.BigEndian.Uint32(b) != crc32.Update(s.salt, castagnoli(), b[4:recordHead]) {
		return head{}, false
	}
	return head{
		bodyCRC: binary.BigEndian.Uint32(b[4:]),
		index:   binary.BigEndian.Uint64(b[8:]), term: binary.BigEndian.Uint64(b[16:]),
		at:   int64(binary.BigEndian.Uint64(b[24:])),
		data: binary.BigEndian.Uint32(b[32:]), ext: binary.BigEndian.Uint32(b[36:]),
		position: binary.BigEndian.Uint32(b[40:]), kind: b[44],
	}, true
}

// read reads the entry of an index that the segment holds.
func (s *segment) read(index uint64, l *raft.Log) error {
	from, to := s.offset(index), s.tail
	if index < s.last() {
		to = s.offset(index + 1)
	}
	b := make([]byte, to-from)
	if _, err := s.file.ReadAt(b, from); err != nil {
		return fmt.Errorf("read log entry %d: %w", index, err)
	}
	h, ok := s.decodeHead(b)
	if !ok || h.index != index || int64(h.data)+int64(h.ext) != to-from-recordHead ||
		crc32.Update(crc32.Update(0, castagnoli(), b[8:recordHead]), castagnoli(), b[recordHead:]) != h.bodyCRC {
		return fmt.Errorf("%s: log entry %d at byte %d: checksum mismatch", s.file.Name(), index, from)
	}
	body := b[recordHead:]
	*l = raft.Log{Index: h.index, Term: h.term, Type: raft.LogType(h.kind), Data: body[:h.data:h.data]}
	if h.ext > 0 {
		l.Extensions = body[h.data:]
	}
	if h.at != 0 {
		l.AppendedAt = time.Unix(0, h.at)
	}
	return nil
}

// append puts bytes at the tail.
func (s *segment) append(b []byte) error {
	if err := s.probe.ask(Write, s.file.Name()); err != nil {
		return err
	}
	_, err := s.file.WriteAt(b, s.tail)
	return err
}

// rewrite puts the entries from an index on where they are already, and syncs the file.
func (s *segment) rewrite(from uint64) error {
	if from = max(from, s.base); from <= s.last() {
		if err := s.probe.ask(Write, s.file.Name()); err != nil {
			return err
		}
		off := s.offset(from)
		if _, err := io.Copy(io.NewOffsetWriter(s.file, off), io.NewSectionReader(s.file, off, s.tail-off)); err != nil {
			return err
		}
	}
	return s.probe.sync(s.file)
}

// add notes entries that were written at the tail.
func (s *segment) add(off int64, kind raft.LogType) {
	o := uint32(off)
	if kind == raft.LogCommand {
		o |= commandFlag
	}
	s.offs = append(s.offs, o)
}

// cut drops the entries from an index on, and makes room again.
func (s *segment) cut(index uint64, size int64) error {
	tail := s.tail
	if index <= s.last() {
		tail = s.offset(index)
	}
	if err := s.file.Truncate(tail); err != nil {
		return err
	}
	// Without the room the file grows as it is written; the space guard keeps watch.
	_ = allocate(s.file, max(size, tail))
	if err := s.probe.sync(s.file); err != nil {
		return err
	}
	if index <= s.last() {
		s.offs, s.tail = s.offs[:index-s.base], tail
	}
	return nil
}
