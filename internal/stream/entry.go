package stream

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"net/http"
	"time"
)

// entry is one line of a log file in the CRI format:
//
//	2026-11-23T20:24:45.123456789Z stdout F the text
//
// Its slices live as long as the line it was parsed from.
type entry struct {
	time    []byte
	stderr  bool
	partial bool   // tag P: the line goes on in the stream's next entry
	text    []byte // with its newline, if the line ends here
}

var errFormat = errors.New("not a line of a container log")

// parseEntry takes a line apart, with or without its newline. Of the tags only the first counts; more may come
// one day. The time is looked at when it is needed.
func parseEntry(line []byte) (e entry, err error) {
	stamp, rest, ok := bytes.Cut(line, []byte{' '})
	if !ok || len(stamp) < len("2006-01-02T15:04:05Z") || stamp[4] != '-' || stamp[10] != 'T' {
		return e, fmt.Errorf("%w: no time", errFormat)
	}
	stream, rest, ok := bytes.Cut(rest, []byte{' '})
	switch {
	case !ok:
		return e, fmt.Errorf("%w: no stream", errFormat)
	case string(stream) == "stderr":
		e.stderr = true
	case string(stream) != "stdout":
		return e, fmt.Errorf("%w: stream %.20q", errFormat, stream)
	}
	tags, text, ok := bytes.Cut(rest, []byte{' '})
	if !ok {
		// An empty text may come without the blank.
		if tags = bytes.TrimSuffix(rest, []byte{'\n'}); len(tags) > 0 && len(tags) <= 2 {
			text, ok = rest[len(tags):], true
		}
	}
	if !ok {
		return e, fmt.Errorf("%w: no tag", errFormat)
	}
	tag, _, _ := bytes.Cut(tags, []byte{':'})
	e.partial = string(tag) == "P"
	if e.partial {
		text = bytes.TrimSuffix(text, []byte{'\n'})
	}
	e.time, e.text = stamp, text
	return e, nil
}

// stampFixed is how times are written: all nine digits, so that columns stand still.
const stampFixed = "2006-01-02T15:04:05.000000000Z07:00"

// appendStamp appends an entry's time in the fixed format.
func appendStamp(b, stamp []byte) ([]byte, error) {
	const digits = len("2006-01-02T15:04:05.000000000")
	if len(stamp) > digits && stamp[19] == '.' {
		switch zone := stamp[digits:]; {
		case string(zone) == "Z", string(zone) == "+00:00": // conmon writes the latter
			return append(append(b, stamp[:digits]...), 'Z'), nil
		}
	}
	t, err := time.Parse(time.RFC3339Nano, string(stamp))
	if err != nil {
		return b, fmt.Errorf("%w: %w", errFormat, err)
	}
	return t.AppendFormat(b, stampFixed), nil
}

// errEnough says that all that was asked for has been written.
var errEnough = errors.New("limit reached")

// logWriter writes entries by the options.
type logWriter struct {
	o      LogOptions
	out    *bufio.Writer
	flush  func()
	remain int64   // bytes still allowed; negative: all
	within [2]bool // stdout, stderr: the last entry was partial
	stamp  []byte
}

func newLogWriter(w io.Writer, o LogOptions) *logWriter {
	lw := &logWriter{o: o, out: bufio.NewWriterSize(w, 32<<10), flush: func() {}, remain: -1}
	if o.Limit > 0 {
		lw.remain = o.Limit
	}
	if f, ok := w.(http.Flusher); ok {
		lw.flush = f.Flush
	}
	return lw
}

// write writes one entry; errEnough when nothing more may follow.
func (w *logWriter) write(e entry) error {
	stream := 0
	if e.stderr {
		stream = 1
	}
	goesOn := w.within[stream]
	w.within[stream] = e.partial
	if (e.stderr && !w.o.Stderr) || (!e.stderr && !w.o.Stdout) {
		return nil
	}
	if !w.o.Since.IsZero() {
		t, err := time.Parse(time.RFC3339Nano, string(e.time))
		if err != nil {
			return fmt.Errorf("%w: %w", errFormat, err)
		}
		if t.Before(w.o.Since) {
			return nil
		}
	}
	if w.o.Timestamps && !goesOn {
		var err error
		if w.stamp, err = appendStamp(w.stamp[:0], e.time); err != nil {
			return err
		}
		w.stamp = append(w.stamp, ' ')
		if err := w.put(w.stamp); err != nil {
			return err
		}
	}
	return w.put(e.text)
}

func (w *logWriter) put(b []byte) error {
	if w.remain >= 0 {
		b = b[:min(int64(len(b)), w.remain)]
		w.remain -= int64(len(b))
	}
	if _, err := w.out.Write(b); err != nil {
		return err
	}
	if w.remain == 0 {
		return errEnough
	}
	return nil
}

// send hands everything to the client.
func (w *logWriter) send() error {
	if err := w.out.Flush(); err != nil {
		return err
	}
	w.flush()
	return nil
}
