package stream

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/goleak"
	"pgregory.net/rapid"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const stamp = "2026-11-23T20:24:45.%09d+00:00"

func line(n int, stream, tag, text string) string {
	return fmt.Sprintf(stamp+" %s %s %s\n", n, stream, tag, text)
}

func write(tb testing.TB, path string, lines ...string) {
	tb.Helper()
	if err := os.WriteFile(path, []byte(strings.Join(lines, "")), 0o600); err != nil {
		tb.Fatal(err)
	}
}

var all = LogOptions{Tail: -1, Stdout: true, Stderr: true}

func with(f func(*LogOptions)) LogOptions {
	o := all
	f(&o)
	return o
}

func read(t *testing.T, path string, o LogOptions) string {
	t.Helper()
	var b bytes.Buffer
	h := New(Config{})
	defer h.Close()
	if err := h.ReadLog(t.Context(), Log{Path: path}, o, &b); err != nil {
		t.Fatal(err)
	}
	return b.String()
}

func TestReadLog(t *testing.T) {
	path := filepath.Join(t.TempDir(), "0.log")
	write(t, path+".2", line(1, "stdout", "F", "one"))
	write(t, path+".1", line(2, "stdout", "F", "two"), line(3, "stdout", "P", "thr"), line(4, "stderr", "F", "err"), line(5, "stdout", "F", "ee"))
	write(t, path, line(6, "stderr", "F:x", ""), "rubbish\n", strings.Repeat("\x00", 3*readBlock)+"\n", line(7, "stdout", "P", "open "), line(8, "stdout", "P", "end"))
	for name, c := range map[string]struct {
		o    LogOptions
		want string
	}{
		"all":           {all, "one\ntwo\nthrerr\nee\n\nopen end"},
		"stdout":        {with(func(o *LogOptions) { o.Stderr = false }), "one\ntwo\nthree\nopen end"},
		"stderr":        {with(func(o *LogOptions) { o.Stdout = false }), "err\n\n"},
		"tail 0":        {with(func(o *LogOptions) { o.Tail = 0 }), ""},
		"tail 1":        {with(func(o *LogOptions) { o.Tail = 1 }), "open end"},
		"tail 2":        {with(func(o *LogOptions) { o.Tail = 2 }), "\nopen end"},
		"tail 3":        {with(func(o *LogOptions) { o.Tail = 3 }), "ee\n\nopen end"},
		"tail 4":        {with(func(o *LogOptions) { o.Tail = 4 }), "threrr\nee\n\nopen end"},
		"tail 6":        {with(func(o *LogOptions) { o.Tail = 6 }), "one\ntwo\nthrerr\nee\n\nopen end"},
		"tail too many": {with(func(o *LogOptions) { o.Tail = 99 }), "one\ntwo\nthrerr\nee\n\nopen end"},
		"limit":         {with(func(o *LogOptions) { o.Limit = 6 }), "one\ntw"},
		"limit 1":       {with(func(o *LogOptions) { o.Limit = 1; o.Timestamps = true }), "2"},
		"since":         {with(func(o *LogOptions) { o.Since = time.Date(2026, 11, 23, 20, 24, 45, 6, time.UTC) }), "\nopen end"},
		"timestamps": {
			with(func(o *LogOptions) { o.Timestamps = true; o.Tail = 3; o.Stderr = false }),
			"2026-11-23T20:24:45.000000005Z ee\n2026-11-23T20:24:45.000000007Z open end",
		},
	} {
		if got := read(t, path, c.o); got != c.want {
			t.Errorf("%s: got %q, want %q", name, got, c.want)
		}
	}
	if err := New(Config{}).ReadLog(t.Context(), Log{Path: path + "x"}, all, io.Discard); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("a log that is not there: %v", err)
	}
}

func TestStamps(t *testing.T) {
	for in, want := range map[string]string{
		"2026-11-23T20:24:45.123456789Z":      "2026-11-23T20:24:45.123456789Z",
		"2026-11-23T20:24:45.123456789+00:00": "2026-11-23T20:24:45.123456789Z",
		"2026-11-23T20:24:45.1+02:00":         "2026-11-23T20:24:45.100000000+02:00",
		"2026-11-23T20:24:45Z":                "2026-11-23T20:24:45.000000000Z",
	} {
		if got, err := appendStamp(nil, []byte(in)); err != nil || string(got) != want {
			t.Errorf("%s: %s %v", in, got, err)
		}
	}
	if _, err := appendStamp(nil, []byte("2026-11-23Tnonsense and more..")); !errors.Is(err, errFormat) {
		t.Error(err)
	}
}

// TestTailProperty compares the tail, found from the end of whatever files, with that of the whole log read
// from the beginning.
func TestTailProperty(t *testing.T) {
	dir := t.TempDir()
	rapid.Check(t, func(t *rapid.T) {
		files := rapid.IntRange(1, 3).Draw(t, "files")
		path := filepath.Join(dir, "0.log")
		for n := range 4 {
			_ = os.Remove(rotated(path, n))
		}
		var text strings.Builder
		count, lastTag := 0, ""
		var ends []int // offsets in text at which lines end
		for n := files - 1; n >= 0; n-- {
			var b bytes.Buffer
			for range rapid.IntRange(0, 30).Draw(t, "entries") {
				count++
				tag := rapid.SampledFrom([]string{"F", "F", "P"}).Draw(t, "tag")
				lastTag = tag
				msg := strings.Repeat("x", rapid.SampledFrom([]int{0, 1, 5, 5000, tailBlock, tailBlock + 1}).Draw(t, "length"))
				stream := rapid.SampledFrom([]string{"stdout", "stderr"}).Draw(t, "stream")
				b.WriteString(line(count, stream, tag, msg))
				text.WriteString(msg)
				if tag == "F" {
					text.WriteString("\n")
					ends = append(ends, text.Len())
				} else if rapid.Bool().Draw(t, "rubbish") {
					b.WriteString("rubbish\n")
				}
			}
			if err := os.WriteFile(rotated(path, n), b.Bytes(), 0o600); err != nil {
				t.Fatal(err)
			}
		}
		if lastTag != "F" {
			ends = append(ends, text.Len()) // the line that has not ended
		}
		want := int64(rapid.IntRange(0, 40).Draw(t, "tail"))
		begin := 0
		if at := len(ends) - 1 - int(want); at >= 0 {
			begin = ends[at]
		}
		var got bytes.Buffer
		h := New(Config{})
		defer h.Close()
		if err := h.ReadLog(context.Background(), Log{Path: path}, with(func(o *LogOptions) { o.Tail = want }), &got); err != nil {
			t.Fatal(err)
		}
		if got.String() != text.String()[begin:] {
			t.Fatalf("tail %d: got %d bytes, want %d", want, got.Len(), text.Len()-begin)
		}
	})
}

// follower reads a log that is being written.
type follower struct {
	t     *testing.T
	out   *io.PipeReader
	ended chan struct{}
	done  chan error
	h     *Handler
}

func follow(t *testing.T, path string, o LogOptions) *follower {
	t.Helper()
	r, w := io.Pipe()
	f := &follower{t: t, out: r, ended: make(chan struct{}), done: make(chan error, 1), h: New(Config{})}
	o.Follow = true
	go func() {
		err := f.h.ReadLog(context.Background(), Log{Path: path, Ended: f.ended}, o, w)
		w.Close()
		f.done <- err
	}()
	t.Cleanup(func() {
		r.Close()
		if err := f.h.Close(); err != nil {
			t.Error(err)
		}
	})
	return f
}

func (f *follower) want(text string) {
	f.t.Helper()
	b := make([]byte, len(text))
	if n, err := io.ReadFull(f.out, b); err != nil || string(b) != text {
		f.t.Fatalf("got %q %v, want %q", b[:n], err, text)
	}
}

func appendTo(t *testing.T, path, text string) {
	t.Helper()
	f, err := os.OpenFile(path, os.O_APPEND|os.O_CREATE|os.O_WRONLY, 0o600)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if _, err := f.WriteString(text); err != nil {
		t.Fatal(err)
	}
}

func TestFollowAcrossRotation(t *testing.T) {
	path := filepath.Join(t.TempDir(), "0.log")
	write(t, path, line(1, "stdout", "F", "old"), line(2, "stdout", "F", "one"))
	f := follow(t, path, with(func(o *LogOptions) { o.Tail = 1 }))
	f.want("one\n")
	appendTo(t, path, line(3, "stdout", "F", "two")+line(4, "stdout", "F", "three")[:20])
	f.want("two\n")
	appendTo(t, path, line(4, "stdout", "F", "three")[20:])
	f.want("three\n")
	// Two rotations at once, the second before the first was seen.
	appendTo(t, path, line(5, "stdout", "F", "four"))
	for n, text := range []string{"five", "six"} {
		if n == 1 {
			if err := os.Rename(path+".1", path+".2"); err != nil {
				t.Fatal(err)
			}
		}
		if err := os.Rename(path, path+".1"); err != nil {
			t.Fatal(err)
		}
		appendTo(t, path, line(6, "stdout", "F", text))
	}
	f.want("four\nfive\nsix\n")
	// Cut short and begun anew.
	write(t, path, line(7, "stdout", "F", "7"))
	f.want("7\n")
	appendTo(t, path, line(8, "stdout", "P", "the end"))
	close(f.ended)
	f.want("the end")
	if err := <-f.done; err != nil {
		t.Error(err)
	}
}

// TestTwoRotationsBetweenLooks: the follower finds where its file went and misses nothing in between.
func TestTwoRotationsBetweenLooks(t *testing.T) {
	path := filepath.Join(t.TempDir(), "0.log")
	write(t, path, line(1, "stdout", "F", "one"))
	var out bytes.Buffer
	r := &logReader{log: Log{Path: path, Ended: make(chan struct{})}, w: newLogWriter(&out, all)}
	defer r.close()
	if err := r.open(-1); err != nil {
		t.Fatal(err)
	}
	for i, want := range []string{"one\n", "two\nthree\nfour\n"} {
		if i == 1 {
			appendTo(t, path, line(2, "stdout", "F", "two"))
			for n, text := range []string{"three", "four"} {
				if n == 1 {
					if err := os.Rename(path+".1", path+".2"); err != nil {
						t.Fatal(err)
					}
				}
				if err := os.Rename(path, path+".1"); err != nil {
					t.Fatal(err)
				}
				appendTo(t, path, line(3+n, "stdout", "F", text))
			}
		}
		out.Reset()
		if err := errors.Join(r.drain(t.Context(), false), r.w.send()); err != nil || out.String() != want {
			t.Errorf("got %q %v, want %q", out.String(), err, want)
		}
	}
}

func TestFollowWaitsForTheFile(t *testing.T) {
	path := filepath.Join(t.TempDir(), "0.log")
	f := follow(t, path, all)
	appendTo(t, path, line(1, "stdout", "F", "first"))
	f.want("first\n")
	close(f.ended)
	if err := <-f.done; err != nil {
		t.Error(err)
	}
}

func TestFollowEndsWithItsContext(t *testing.T) {
	path := filepath.Join(t.TempDir(), "0.log")
	write(t, path, line(1, "stdout", "F", "first"))
	ctx, cancel := context.WithCancel(t.Context())
	h := New(Config{})
	r, w := io.Pipe()
	done := make(chan error, 1)
	go func() {
		done <- h.ReadLog(ctx, Log{Path: path, Ended: make(chan struct{})}, with(func(o *LogOptions) { o.Follow = true }), w)
	}()
	if _, err := io.ReadFull(r, make([]byte, 6)); err != nil {
		t.Fatal(err)
	}
	cancel()
	if err := <-done; !errors.Is(err, context.Canceled) {
		t.Error(err)
	}
	if err := h.Close(); err != nil {
		t.Error(err)
	}
}

func TestParseLogQuery(t *testing.T) {
	now := time.Date(2026, 1, 1, 0, 0, 10, 0, time.UTC)
	ok := func(o LogOptions, previous bool) string { return fmt.Sprint(o, previous) }
	for query, want := range map[string]string{
		"":                                   ok(all, false),
		"follow=true&previous=1&timestamps=": ok(with(func(o *LogOptions) { o.Follow, o.Timestamps = true, true }), true),
		"follow=false&previous=0&timestamps=False": ok(all, false),
		"tailLines=5&limitBytes=7":                 ok(with(func(o *LogOptions) { o.Tail, o.Limit = 5, 7 }), false),
		"tail=3":                                   ok(with(func(o *LogOptions) { o.Tail = 3 }), false),
		"tail=all&tailLines=4":                     ok(all, false),
		"sinceSeconds=10":                          ok(with(func(o *LogOptions) { o.Since = now.Add(-10 * time.Second) }), false),
		"sinceTime=2025-12-31T00:00:00Z":           ok(with(func(o *LogOptions) { o.Since = now.Add(-24*time.Hour - 10*time.Second) }), false),
		"stream=Stdout":                            ok(with(func(o *LogOptions) { o.Stderr = false }), false),
		"stream=All&tailLines=0&insecureSkipTLSVerifyBackend=true": ok(with(func(o *LogOptions) { o.Tail = 0 }), false),
		"tailLines=x":         undecodable,
		"sinceTime=yesterday": undecodable,
		"tailLines=-1":        invalid,
		"limitBytes=0":        invalid,
		"sinceSeconds=0":      invalid,
		"sinceSeconds=1&sinceTime=2025-12-31T00:00:00Z": invalid,
		"stream=stdin":              invalid,
		"stream=Stderr&tailLines=1": invalid,
	} {
		q, err := url.ParseQuery(query)
		if err != nil {
			t.Fatal(err)
		}
		o, previous, err := parseLogQuery(q, now)
		got := ok(o, previous)
		if err != nil {
			got = err.Error()
		}
		if got != want {
			t.Errorf("%s: got %s, want %s", query, got, want)
		}
	}
}

func FuzzParseEntry(f *testing.F) {
	f.Add([]byte(line(1, "stdout", "F", "text")))
	f.Add([]byte("2026-11-23T20:24:45Z stderr P:x a b"))
	f.Add([]byte("2026-11-23T20:24:45Z stderr F\n"))
	f.Fuzz(func(t *testing.T, b []byte) {
		e, err := parseEntry(b)
		if err != nil {
			if !errors.Is(err, errFormat) {
				t.Errorf("%v is not errFormat", err)
			}
			return
		}
		if len(e.text) > len(b) || (e.partial && bytes.HasSuffix(e.text, []byte("\n")) && !bytes.HasSuffix(b, []byte("\n\n"))) {
			t.Errorf("%q: %+v", b, e)
		}
		var out bytes.Buffer
		w := newLogWriter(&out, with(func(o *LogOptions) { o.Timestamps, o.Since, o.Limit = true, time.Unix(1, 0), 50 }))
		if err := w.write(e); err != nil && !errors.Is(err, errFormat) && !errors.Is(err, errEnough) {
			t.Error(err)
		}
		if err := w.send(); err != nil || out.Len() > 50 {
			t.Errorf("%d bytes, %v", out.Len(), err)
		}
	})
}

func FuzzParseLogQuery(f *testing.F) {
	f.Add("tailLines=5&sinceTime=2025-12-31T00:00:00Z&stream=All")
	f.Add("sinceSeconds=9223372036854775807&limitBytes=1")
	f.Fuzz(func(t *testing.T, s string) {
		q, err := url.ParseQuery(s)
		if err != nil {
			return
		}
		now := time.Unix(1800000000, 0)
		o, _, err := parseLogQuery(q, now)
		var status *StatusError
		if err != nil {
			if !errors.As(err, &status) || status.Code < 400 || status.Code > 499 {
				t.Errorf("%v", err)
			}
			return
		}
		if o.Limit < 0 || o.Tail < -1 || (!o.Stdout && !o.Stderr) || (q.Has("sinceSeconds") && q.Get("sinceSeconds") != "" && o.Since.After(now)) {
			t.Errorf("%q: %+v", s, o)
		}
	})
}

func FuzzTail(f *testing.F) {
	f.Add([]byte(line(1, "stdout", "F", "a")+line(2, "stdout", "P", "b")), int64(1))
	f.Fuzz(func(t *testing.T, b []byte, n int64) {
		tail := &tailer{want: max(n, 0)}
		off, _, err := tail.find(bytes.NewReader(b), int64(len(b)))
		if err != nil || off < 0 || off > int64(len(b)) || (off > 0 && off < int64(len(b)) && b[off-1] != '\n') {
			t.Errorf("offset %d of %d, %v", off, len(b), err)
		}
	})
}

func TestBlindFollowerPolls(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		dir := t.TempDir()
		path := filepath.Join(dir, "no", "such", "0.log") // nothing to watch
		f := follow(t, path, all)
		synctest.Wait()
		if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
			t.Fatal(err)
		}
		appendTo(t, path, line(1, "stdout", "F", "found"))
		f.want("found\n")
		close(f.ended)
		if err := <-f.done; err != nil {
			t.Error(err)
		}
	})
}

func BenchmarkReadLog(b *testing.B) {
	path := filepath.Join(b.TempDir(), "0.log")
	one := line(1, "stdout", "F", strings.Repeat("x", 100))
	write(b, path, strings.Repeat(one, 200_000))
	h := New(Config{})
	defer h.Close()
	for name, o := range map[string]LogOptions{
		"plain":      all,
		"timestamps": with(func(o *LogOptions) { o.Timestamps = true }),
		"since":      with(func(o *LogOptions) { o.Since = time.Unix(1, 0) }),
	} {
		b.Run(name, func(b *testing.B) {
			b.SetBytes(int64(200_000 * len(one)))
			b.ReportAllocs()
			for b.Loop() {
				if err := h.ReadLog(b.Context(), Log{Path: path}, o, io.Discard); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
	b.Run("tail=100", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			if err := h.ReadLog(b.Context(), Log{Path: path}, with(func(o *LogOptions) { o.Tail = 100 }), io.Discard); err != nil {
				b.Fatal(err)
			}
		}
	})
}
