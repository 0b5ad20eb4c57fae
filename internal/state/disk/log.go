package disk

import (
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"time"

	"github.com/hashicorp/raft"
)

// Log is Raft's log in segment files. It implements raft.LogStore. What StoreLogs has returned for is
// on disk.
//
// It has no gaps, but must not say so (raft.MonotonicLogStore): Raft would then drop the whole log
// whenever a leader's snapshot comes, also when one comes late, twice, after entries that are newer
// than it and acknowledged. As it is, the log is dropped when the first entry after the snapshot
// comes, and only if it ends before.
type Log struct {
	root, dir string
	log       *slog.Logger
	meta      *Meta
	snaps     *Snapshots
	size      int64

	mu     sync.RWMutex
	segs   []*segment // consecutive, oldest first
	buf    []byte
	failed error
	broken chan struct{} // closed when failed is set
	timer  *time.Timer   // pending update of the mark
	marks  sync.WaitGroup
	closed bool
	cut    bool // the end was dropped, and nothing has come in its place
}

const (
	// defaultSegment is the size of a segment file; an entry that is larger gets a file of its own.
	defaultSegment = 8 << 20
	maxGroup       = 1 << 30
	maxBuffer      = 256 << 10 // kept between writes
	// markDelay bounds how far the mark may lag behind the log.
	markDelay = time.Second
)

// FirstIndex implements raft.LogStore.
func (l *Log) FirstIndex() (uint64, error) {
	l.mu.RLock()
	defer l.mu.RUnlock()
	return l.first(), nil
}

// LastIndex implements raft.LogStore.
func (l *Log) LastIndex() (uint64, error) {
	l.mu.RLock()
	defer l.mu.RUnlock()
	return l.last(), nil
}

func (l *Log) first() uint64 {
	if l.last() == 0 {
		return 0
	}
	return l.segs[0].base
}

func (l *Log) last() uint64 {
	n := len(l.segs)
	if n == 0 || n == 1 && len(l.segs[0].offs) == 0 {
		return 0
	}
	return l.segs[n-1].last()
}

// find returns the segment that holds an index, nil when none does. Called with the lock held.
func (l *Log) find(index uint64) *segment {
	for i := len(l.segs) - 1; i >= 0; i-- {
		if s := l.segs[i]; index >= s.base {
			if index > s.last() {
				return nil
			}
			return s
		}
	}
	return nil
}

// GetLog implements raft.LogStore.
func (l *Log) GetLog(index uint64, out *raft.Log) error {
	l.mu.RLock()
	defer l.mu.RUnlock()
	if l.closed {
		return os.ErrClosed
	}
	s := l.find(index)
	if s == nil {
		return raft.ErrLogNotFound
	}
	return s.read(index, out)
}

// LastCommand returns the newest index in (after, upTo] that holds a command, 0 when none does.
func (l *Log) LastCommand(after, upTo uint64) uint64 {
	l.mu.RLock()
	defer l.mu.RUnlock()
	for i := upTo; i > after; i-- {
		if s := l.find(i); s != nil && s.offs[i-s.base]&commandFlag != 0 {
			return i
		}
	}
	return 0
}

// Others calls fn for the entries of (after, last] that are no commands, oldest first.
func (l *Log) Others(after uint64, fn func(*raft.Log) error) error {
	l.mu.RLock()
	defer l.mu.RUnlock()
	for _, s := range l.segs {
		for i, off := range s.offs {
			index := s.base + uint64(i)
			if index <= after || off&commandFlag != 0 {
				continue
			}
			var entry raft.Log
			if err := s.read(index, &entry); err != nil {
				return err
			}
			if err := fn(&entry); err != nil {
				return err
			}
		}
	}
	return nil
}

// StoreLog implements raft.LogStore.
func (l *Log) StoreLog(entry *raft.Log) error { return l.StoreLogs([]*raft.Log{entry}) }

// StoreLogs implements raft.LogStore. After an error nothing of the group is in the log; after
// most, such as a full disk, the next call may succeed.
func (l *Log) StoreLogs(entries []*raft.Log) error {
	if len(entries) == 0 {
		return nil
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if err := l.store(entries); err != nil {
		if l.cut {
			// Raft drops a tail only to put another in its place. Where that fails it goes on believing in the
			// dropped one, and refuses what follows the true end for ever: it must look again.
			l.fail(err)
		}
		return fmt.Errorf("append to log: %w", err)
	}
	l.cut = false
	return nil
}

// store appends a group. Called with the lock held.
func (l *Log) store(entries []*raft.Log) error {
	s, err := l.room(entries)
	if err != nil {
		return err
	}
	l.buf = l.buf[:0]
	offs := make([]int64, len(entries))
	for i, e := range entries {
		offs[i] = s.tail + int64(len(l.buf))
		l.buf = s.appendRecord(l.buf, e, i)
	}
	if err := l.write(s); err != nil {
		return err
	}
	for i, e := range entries {
		s.add(offs[i], e.Type)
	}
	s.tail += int64(len(l.buf))
	if cap(l.buf) > maxBuffer {
		l.buf = nil
	}
	if l.timer == nil {
		l.marks.Add(1)
		l.timer = time.AfterFunc(markDelay, l.markLater)
	}
	return nil
}

// room returns the segment to write the entries to. Called with the lock held.
func (l *Log) room(entries []*raft.Log) (*segment, error) {
	if l.closed {
		return nil, os.ErrClosed
	}
	if l.failed != nil {
		return nil, fmt.Errorf("%w: %w", ErrFailed, l.failed)
	}
	need := int64(0)
	for i, e := range entries {
		if e.Index != entries[0].Index+uint64(i) {
			return nil, fmt.Errorf("entry %d is out of order", e.Index)
		}
		need += recordHead + int64(len(e.Data)) + int64(len(e.Extensions))
	}
	if need > maxGroup {
		return nil, fmt.Errorf("group of %d bytes", need)
	}
	next := entries[0].Index
	if err := l.follow(next); err != nil {
		return nil, err
	}
	if n := len(l.segs); n > 0 {
		if s := l.segs[n-1]; s.tail+need <= l.size || len(s.offs) == 0 {
			return s, nil
		}
	}
	s, err := createSegment(l.meta.probe, l.dir, next, max(l.size, int64(segmentHead)+need))
	if errors.Is(err, ErrFailed) {
		l.fail(err)
	}
	if err != nil {
		return nil, err
	}
	l.segs = append(l.segs, s)
	return s, nil
}

// follow drops the log where an entry is to follow a snapshot instead. Called with the lock held.
func (l *Log) follow(next uint64) error {
	n := len(l.segs)
	if n > 0 && next == l.segs[n-1].last()+1 {
		return nil
	}
	// The only file may be empty, left by a write that failed: it has no end to follow.
	last := l.last()
	if last != 0 && next <= last || next > l.snaps.newest()+1 {
		return fmt.Errorf("entry %d does not follow %d", next, last)
	}
	if n == 0 {
		return nil
	}
	// A snapshot holds what lies between, and all of the log.
	if err := l.meta.setMark(keyLogMark, 0); err != nil {
		return err
	}
	return l.dropFrom(0)
}

// write puts the buffer at the tail. Called with the lock held.
func (l *Log) write(s *segment) error {
	if err := s.append(l.buf); err != nil {
		// Half a group must not lie in the way of the next.
		if cut := s.cut(s.last()+1, l.size); cut != nil {
			l.fail(cut)
			return unknown(err)
		}
		return err
	}
	if err := s.probe.datasync(s.file); err != nil {
		// What is on disk and what is not, nobody knows: the kernel takes the pages for written from now on.
		l.fail(err)
		return unknown(err)
	}
	return nil
}

// fail marks the log as failed if there is an error. Called with the lock held.
func (l *Log) fail(err error) {
	if err != nil && l.failed == nil {
		l.failed = err
		close(l.broken)
	}
}

// Fail marks the log as failed, as a sync that failed does: for injecting faults.
func (l *Log) Fail(err error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.fail(err)
}

// Broken returns a channel that closes when the log must be reopened; Failed says why.
func (l *Log) Broken() <-chan struct{} { return l.broken }

// Failed returns the error after which the log must be reopened, nil when it is sound.
func (l *Log) Failed() error {
	l.mu.RLock()
	defer l.mu.RUnlock()
	return l.failed
}

// DeleteRange implements raft.LogStore. A range at the beginning is dropped in whole segments, so
// some of it may stay readable, which Raft does not mind.
func (l *Log) DeleteRange(from, to uint64) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	first, last := l.first(), l.last()
	switch {
	case last == 0 || to < first || from > last:
		return nil
	case to < last && from <= first:
		return l.dropBefore(to + 1)
	case to < last:
		return fmt.Errorf("delete log entries %d to %d of %d to %d: in the middle", from, to, first, last)
	}
	// The mark must never be above the end of the log, also in the middle of this.
	keep := uint64(0)
	if from > first {
		keep = from - 1
	}
	if err := l.meta.setMark(keyLogMark, min(keep, l.meta.mark(keyLogMark))); err != nil {
		return fmt.Errorf("delete log entries from %d: %w", from, err)
	}
	l.cut = true
	return l.dropFrom(max(from, first))
}

// dropBefore removes the segments that hold nothing from index on, oldest first; never the last one.
func (l *Log) dropBefore(index uint64) error {
	for len(l.segs) > 1 && l.segs[0].last() < index {
		if err := l.remove(0); err != nil {
			return err
		}
	}
	return nil
}

// dropFrom removes the entries from index on, newest first.
func (l *Log) dropFrom(index uint64) (err error) {
	for i := len(l.segs) - 1; i >= 0 && err == nil; i-- {
		if s := l.segs[i]; s.base < index {
			err = s.cut(index, l.size)
			break
		}
		err = l.remove(i)
	}
	l.fail(err)
	return err
}

// remove takes away a file at either end. That is on disk before the next one is touched, or a power
// failure could bring this one back behind a gap.
func (l *Log) remove(i int) error {
	s := l.segs[i]
	if err := os.Remove(s.file.Name()); err != nil {
		return err
	}
	_ = s.file.Close()
	l.segs = slices.Delete(l.segs, i, i+1)
	err := l.meta.probe.syncDir(l.dir)
	l.fail(err)
	return err
}

// markLater stores how far the log reaches, so that a shorter one is recognized as damaged.
func (l *Log) markLater() {
	defer l.marks.Done()
	l.mu.Lock()
	defer l.mu.Unlock()
	l.timer = nil
	if l.closed || l.failed != nil {
		return
	}
	if err := l.meta.setMark(keyLogMark, l.last()); err != nil {
		l.log.Warn("the log's low-water mark cannot be stored", "dir", l.dir, "err", err)
	}
}

func (l *Log) close() error {
	l.mu.Lock()
	if l.timer != nil && l.timer.Stop() {
		l.marks.Done()
	}
	l.closed = true
	var err error
	if l.failed == nil {
		err = l.meta.setMark(keyLogMark, l.last())
	} else if n := len(l.segs); n > 0 {
		// What failed was not acknowledged. It must not be read as if it were on disk.
		err = l.segs[n-1].cut(l.segs[n-1].last()+1, l.size)
	}
	for _, s := range l.segs {
		err = errors.Join(err, s.file.Close())
	}
	l.mu.Unlock()
	l.marks.Wait()
	return err
}

// path names a file of the log.
func (l *Log) path(name string) string { return filepath.Join(l.dir, name) }
