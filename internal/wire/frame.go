package wire

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"slices"
)

// MaxMessage is how long a request or an answer may be.
const MaxMessage = 8 << 20

// A frame is, on the wire: length of the body (4 bytes), id of the call (8), kind (1), body.
const (
	headerSize = 13
	// firstRead is how much of a body is taken at its word; more is made room for as it arrives.
	firstRead = 64 << 10
)

type kind byte

const (
	request kind = 1 + iota // body: what is asked
	answer                  // body: what is answered
	failure                 // body: a text, why there is no answer
	cancel                  // no body: the caller has given up
)

type frame struct {
	kind kind
	id   uint64
	body []byte
}

// writeFrame writes a frame; w buffers.
func writeFrame(w io.Writer, f frame) error {
	var h [headerSize]byte
	binary.BigEndian.PutUint32(h[:], uint32(len(f.body))) // #nosec G115 -- at most MaxMessage
	binary.BigEndian.PutUint64(h[4:], f.id)
	h[12] = byte(f.kind)
	if _, err := w.Write(h[:]); err != nil {
		return err
	}
	_, err := w.Write(f.body)
	return err
}

// readFrame reads a frame; r buffers. It returns io.EOF only between two frames.
func readFrame(r io.Reader) (frame, error) {
	var h [headerSize]byte
	if _, err := io.ReadFull(r, h[:]); err != nil {
		return frame{}, err
	}
	size, f := int(binary.BigEndian.Uint32(h[:])), frame{id: binary.BigEndian.Uint64(h[4:]), kind: kind(h[12])}
	switch {
	case size > MaxMessage:
		return frame{}, fmt.Errorf("frame of %d bytes: at most %d are allowed", size, MaxMessage)
	case f.kind < request || f.kind > cancel:
		return frame{}, fmt.Errorf("frame of the unknown kind %d", f.kind)
	case f.kind == cancel && size > 0:
		return frame{}, fmt.Errorf("cancelling frame with a body of %d bytes", size)
	}
	f.body = make([]byte, 0, min(size, firstRead))
	for len(f.body) < size {
		if len(f.body) == cap(f.body) {
			f.body = slices.Grow(f.body, min(size-len(f.body), len(f.body)))
		}
		have := len(f.body)
		f.body = f.body[:min(size, cap(f.body))]
		if _, err := io.ReadFull(r, f.body[have:]); err != nil {
			if errors.Is(err, io.EOF) {
				err = io.ErrUnexpectedEOF
			}
			return frame{}, err
		}
	}
	return f, nil
}
