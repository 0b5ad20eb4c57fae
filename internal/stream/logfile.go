package stream

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"time"
)

const (
	readBlock = 64 << 10
	// maxLine bounds the memory for one line of a log file; conmon cuts at 8 KB. Longer ones are rubbish (a
	// file full of zeros after a power failure) and are skipped.
	maxLine = 1 << 20
	// pollAll is how often a follower looks without having been told that there is something new; pollBlind
	// is the same when the kernel cannot tell.
	pollAll   = 10 * time.Second
	pollBlind = time.Second
)

// ReadLog copies a container's log, rotated files included, to w by the options until its end, or with
// Follow until the container has ended or ctx does. w is flushed (http.Flusher) whenever the reader waits.
func (h *Handler) ReadLog(ctx context.Context, l Log, o LogOptions, w io.Writer) error {
	r := &logReader{log: l, w: newLogWriter(w, o)}
	defer r.close()
	if err := r.open(o.Tail); err != nil {
		return err
	}
	err := r.drain(ctx, false)
	if err == nil && o.Follow && l.Ended != nil {
		err = h.follow(ctx, r)
	}
	if err == nil {
		err = r.drain(ctx, true) // a last line without a newline
	}
	if errors.Is(err, errEnough) {
		err = nil
	}
	return errors.Join(err, r.w.send())
}

// follow waits for more until the container has ended.
func (h *Handler) follow(ctx context.Context, r *logReader) error {
	changed, stop := h.files.add(filepath.Dir(r.log.Path))
	defer stop()
	poll := pollAll
	if changed == nil {
		poll = pollBlind
	}
	timer := time.NewTicker(poll)
	defer timer.Stop()
	for ended := false; ; {
		if err := r.drain(ctx, false); err != nil || ended {
			return err
		}
		if err := r.w.send(); err != nil {
			return err
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-r.log.Ended:
			ended = true // and once more to the end
		case <-changed:
		case <-timer.C:
		}
	}
}

// logReader reads the files of one log, the oldest first.
type logReader struct {
	log   Log
	w     *logWriter
	files []*os.File // to be read; the first is being read
	info  os.FileInfo
	in    *bufio.Reader
	pos   int64  // in the first file, after the last whole line
	rest  []byte // begin of a line that was not whole yet
	skip  bool   // the line being read is too long
}

func (r *logReader) close() {
	for _, f := range r.files {
		f.Close()
	}
}

// open opens what the tail begins in and everything newer. A file that is not there yet is no error.
func (r *logReader) open(lines int64) error {
	t := &tailer{want: lines}
	offset := int64(0)
	var last os.FileInfo // the file opened before
	for n := 0; ; n++ {
		f, err := os.Open(rotated(r.log.Path, n))
		if errors.Is(err, fs.ErrNotExist) {
			break
		}
		if err != nil {
			return fmt.Errorf("open log: %w", err)
		}
		info, err := f.Stat()
		if err != nil {
			f.Close()
			return fmt.Errorf("open log: %w", err)
		}
		if last != nil && os.SameFile(info, last) { // renamed since we opened it
			f.Close()
			continue
		}
		last = info
		r.files = append([]*os.File{f}, r.files...)
		if lines < 0 {
			continue
		}
		done := false
		if offset, done, err = t.find(f, info.Size()); err != nil {
			return fmt.Errorf("tail log %s: %w", f.Name(), err)
		}
		if done {
			break
		}
	}
	if len(r.files) == 0 {
		if r.log.Ended == nil {
			return fmt.Errorf("open log: %w", &fs.PathError{Op: "open", Path: r.log.Path, Err: fs.ErrNotExist})
		}
		return nil
	}
	return r.start(offset)
}

// start begins with the first file.
func (r *logReader) start(offset int64) (err error) {
	f := r.files[0]
	if r.info, err = f.Stat(); err != nil {
		return fmt.Errorf("read log: %w", err)
	}
	if _, err := f.Seek(offset, io.SeekStart); err != nil {
		return fmt.Errorf("read log: %w", err)
	}
	r.pos, r.rest, r.skip = offset, r.rest[:0], false
	if r.in == nil {
		r.in = bufio.NewReaderSize(f, readBlock)
	} else {
		r.in.Reset(f)
	}
	return nil
}

// rotated is the name of the n-th newest file of a log.
func rotated(path string, n int) string {
	if n == 0 {
		return path
	}
	return path + "." + strconv.Itoa(n)
}

// drain writes everything that is there. last: also a line that has not ended, since nobody will end it.
func (r *logReader) drain(ctx context.Context, last bool) error {
	for {
		if len(r.files) > 0 {
			if err := r.lines(ctx); err != nil {
				return err
			}
		}
		more, err := r.next(ctx, last)
		if err != nil {
			return err
		}
		if more {
			continue
		}
		if last && len(r.rest) > 0 {
			return r.put(r.rest)
		}
		return nil
	}
}

// lines writes the whole lines of the first file from where it stands.
func (r *logReader) lines(ctx context.Context) error {
	for n := 0; ; n++ {
		if n%1024 == 0 && ctx.Err() != nil {
			return ctx.Err()
		}
		line, err := r.in.ReadSlice('\n')
		r.pos += int64(len(line))
		whole := err == nil
		if err != nil && !errors.Is(err, bufio.ErrBufferFull) && !errors.Is(err, io.EOF) {
			return fmt.Errorf("read log: %w", err)
		}
		if len(r.rest) > 0 || !whole {
			if r.skip = r.skip || len(r.rest)+len(line) > maxLine; !r.skip {
				r.rest = append(r.rest, line...)
			}
			line = r.rest
		}
		if whole {
			if !r.skip {
				if err := r.put(line); err != nil {
					return err
				}
			}
			r.rest, r.skip = r.rest[:0], false
		}
		if errors.Is(err, io.EOF) {
			return nil
		}
	}
}

func (r *logReader) put(line []byte) error {
	e, err := parseEntry(line)
	if err == nil {
		err = r.w.write(e)
	}
	if errors.Is(err, errFormat) {
		return nil // rubbish between good lines does not end a log
	}
	return err
}

// next goes on with the next file, if there is one: of those found at the beginning, or made by a
// rotation since. A file that was cut short is read from its beginning.
func (r *logReader) next(ctx context.Context, last bool) (bool, error) {
	if len(r.files) == 0 {
		f, err := os.Open(r.log.Path)
		if errors.Is(err, fs.ErrNotExist) {
			return false, nil
		}
		if err != nil {
			return false, fmt.Errorf("open log: %w", err)
		}
		r.files = append(r.files, f)
		return true, r.start(0)
	}
	if len(r.files) == 1 {
		if info, err := r.files[0].Stat(); err == nil && info.Size() < r.pos {
			return true, r.start(0)
		}
		if last || r.log.Ended == nil {
			return false, nil
		}
		newer := r.newer()
		if newer == nil {
			return false, nil
		}
		// What was written between the end we saw and the rotation.
		if err := r.lines(ctx); err != nil {
			newer.Close()
			return false, err
		}
		r.files = append(r.files, newer)
	}
	r.files[0].Close()
	r.files = r.files[1:]
	return true, r.start(0)
}

// newer opens the file that follows the one that is being read, when that is no longer the current one.
func (r *logReader) newer() *os.File {
	if info, err := os.Stat(r.log.Path); err != nil || os.SameFile(info, r.info) {
		return nil
	}
	var next string
	for n := 1; ; n++ {
		info, err := os.Stat(rotated(r.log.Path, n))
		if err != nil {
			next = r.log.Path // ours is gone: whatever there was between is, too
			break
		}
		if os.SameFile(info, r.info) {
			next = rotated(r.log.Path, n-1)
			break
		}
	}
	f, err := os.Open(next)
	if err != nil {
		return nil // rotated at this moment; the next look will find it
	}
	return f
}
