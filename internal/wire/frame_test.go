package wire

import (
	"bufio"
	"bytes"
	"errors"
	"io"
	"runtime"
	"testing"
)

func encode(tb testing.TB, frames ...frame) []byte {
	tb.Helper()
	var b bytes.Buffer
	for _, f := range frames {
		if err := writeFrame(&b, f); err != nil {
			tb.Fatal(err)
		}
	}
	return b.Bytes()
}

func TestFrames(t *testing.T) {
	frames := []frame{
		{kind: request, id: 1, body: []byte("hello")},
		{kind: answer, id: 1<<64 - 1, body: bytes.Repeat([]byte("x"), 3*firstRead+1)},
		{kind: failure, id: 0, body: []byte("no")},
		{kind: cancel, id: 5},
	}
	b := encode(t, frames...)
	r := bufio.NewReader(bytes.NewReader(b))
	for _, want := range frames {
		got, err := readFrame(r)
		if err != nil || got.kind != want.kind || got.id != want.id || !bytes.Equal(got.body, want.body) {
			t.Errorf("got %d %d (%d bytes), %v", got.kind, got.id, len(got.body), err)
		}
	}
	if _, err := readFrame(r); !errors.Is(err, io.EOF) {
		t.Errorf("at the end: %v", err)
	}
	for n := 1; n < headerSize+5; n++ {
		if _, err := readFrame(bytes.NewReader(b[:n])); !errors.Is(err, io.ErrUnexpectedEOF) {
			t.Errorf("cut at %d: %v", n, err)
		}
	}
}

// TestFrameIsNotBelieved: who announces much and sends little costs little.
func TestFrameIsNotBelieved(t *testing.T) {
	head := []byte{0x00, 0x80, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, byte(request)}
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	if _, err := readFrame(bytes.NewReader(head)); !errors.Is(err, io.ErrUnexpectedEOF) {
		t.Errorf("err = %v", err)
	}
	runtime.ReadMemStats(&after)
	if n := after.TotalAlloc - before.TotalAlloc; n > 4*firstRead {
		t.Errorf("%d bytes for a frame of which nothing came", n)
	}
}

func FuzzFrame(f *testing.F) {
	f.Add(encode(f, frame{kind: request, id: 1, body: []byte("hello")}, frame{kind: cancel, id: 1}))
	f.Add(encode(f, frame{kind: answer, id: 2, body: make([]byte, firstRead+1)}))
	f.Add([]byte{0x00, 0x80, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 1})
	f.Add([]byte{0xff, 0xff, 0xff, 0xff, 0, 0, 0, 0, 0, 0, 0, 1, 9})
	f.Fuzz(func(t *testing.T, b []byte) {
		r := bytes.NewReader(b)
		var again bytes.Buffer
		for {
			got, err := readFrame(r)
			if err != nil {
				break
			}
			if len(got.body) > MaxMessage {
				t.Fatalf("a body of %d bytes", len(got.body))
			}
			if err := writeFrame(&again, got); err != nil {
				t.Fatal(err)
			}
		}
		if !bytes.HasPrefix(b, again.Bytes()) {
			t.Error("what was read is not what was written")
		}
	})
}
