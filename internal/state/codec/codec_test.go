package codec_test

import (
	"bytes"
	"encoding/binary"
	"strings"
	"testing"

	"github.com/podman-swarm/podman-swarm/internal/state/codec"
)

func TestReader(t *testing.T) {
	b := binary.AppendUvarint(nil, 300)
	b = binary.BigEndian.AppendUint64(b, 7)
	b = append(binary.AppendUvarint(b, 3), "abcrest"...)
	r := codec.Reader{B: b}
	if n, u, s := r.Uvarint(), r.Uint64(), r.Bytes(3); n != 300 || u != 7 || string(s) != "abc" || cap(s) != 3 || r.Bad {
		t.Fatalf("read %d, %d, %q, bad %v", n, u, s, r.Bad)
	}
	if string(r.B) != "rest" {
		t.Fatalf("%q is left", r.B)
	}
	for cut := range len(b) - len("rest") {
		r := codec.Reader{B: b[:cut]}
		r.Uvarint()
		r.Uint64()
		if r.Bytes(3); !r.Bad || len(r.B) != 0 {
			t.Errorf("cut at %d: bad %v, %d bytes left", cut, r.Bad, len(r.B))
		}
	}
	long := codec.Reader{B: append([]byte{4}, bytes.Repeat([]byte{1}, 10)...)}
	if long.Bytes(3); !long.Bad {
		t.Error("a field above its limit was read")
	}
}

func TestCheckVersion(t *testing.T) {
	for _, c := range []struct {
		got, current uint32
		says         string
	}{
		{1, 1, ""},
		{2, 3, ""},
		{3, 3, ""},
		{2, 1, "written by a newer version"},
		{0, 1, "in between"},
		{1, 3, "in between"},
	} {
		err := codec.CheckVersion("file", c.got, c.current)
		if c.says == "" && err != nil || c.says != "" && (err == nil || !strings.Contains(err.Error(), c.says)) {
			t.Errorf("version %d read by %d: %v", c.got, c.current, err)
		}
	}
}
