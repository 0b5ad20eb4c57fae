package stream

import (
	"bytes"
	"errors"
	"io"
)

const tailBlock = 64 << 10

// tailer finds where the last n lines of a log begin, reading from the end. A line is what the container wrote up
// to a newline, however many entries the log has for it; so lines are counted by the entries that end them. What
// comes after the last end is a line of its own: it has just not ended yet.
type tailer struct {
	want int64 // lines still to be found
	any  bool  // an entry was seen
}

// find returns the offset in f from which on everything belongs to the tail, and whether the tail begins in
// this file; if not, older files have more of it. Call it with the newest file first.
func (t *tailer) find(f io.ReaderAt, size int64) (offset int64, done bool, err error) {
	if t.want == 0 && !t.any {
		return size, true, nil
	}
	var buf []byte // the file from off on, as far as it has not been counted
	off := size
	for off > 0 {
		n := min(tailBlock, off)
		block := make([]byte, int(n)+len(buf))
		copy(block[n:], buf)
		if _, err := f.ReadAt(block[:n], off-n); err != nil && !errors.Is(err, io.EOF) {
			return 0, false, err
		}
		off -= n
		buf = block
		for len(buf) > 0 {
			// The last line of buf begins after the newline before it.
			begin := bytes.LastIndexByte(buf[:len(buf)-1], '\n') + 1
			if begin == 0 && off > 0 {
				if len(buf) > maxLine {
					buf = buf[:0] // no log has such lines: not ours, skipped on reading too
				}
				break
			}
			if t.count(buf[begin:]) {
				return off + int64(len(buf)), true, nil
			}
			buf = buf[:begin]
		}
	}
	return 0, false, nil
}

// count takes in one line, from the end; true when it is the one before the tail.
func (t *tailer) count(line []byte) bool {
	e, err := parseEntry(line)
	if err != nil {
		return false // not written either
	}
	if e.partial && t.any {
		return false // the end of its line was counted
	}
	t.any = true
	t.want--
	return t.want < 0
}
