package peers

import (
	"bytes"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/podman-swarm/podman-swarm/internal/hlc"
	"github.com/podman-swarm/podman-swarm/internal/state"
)

func standing() state.Standing {
	return state.Standing{Server: "n1.12345678", Lineage: "30cad518cd2506db", Born: hlc.Stamp(1 << 40), Leader: true, Term: 7, Index: 1 << 33}
}

func TestMeta(t *testing.T) {
	for _, m := range []Meta{
		{},
		{Standing: standing()},
		{Standing: standing(), API: "10.0.0.1:6443", Release: "v1.2.3"},
	} {
		got, err := DecodeMeta(m.Encode())
		if err != nil || cmp.Diff(m, got) != "" {
			t.Errorf("%+v came back as %+v, %v", m, got, err)
		}
	}
	long := Meta{Standing: standing(), API: strings.Repeat("a", 1000), Release: strings.Repeat("b", 1000)}.Encode()
	if len(long) > 512 {
		t.Errorf("%d bytes do not fit into gossip", len(long))
	}
	if got, err := DecodeMeta(long); err != nil || got.API != strings.Repeat("a", maxText) {
		t.Errorf("clipped: %+v, %v", got, err)
	}
}

func TestMetaOfANewerRelease(t *testing.T) {
	m := Meta{Standing: standing(), API: "10.0.0.1:6443", Release: "v9"}
	if got, err := DecodeMeta(append(m.Encode(), 1, 2, 3)); err != nil || cmp.Diff(m, got) != "" {
		t.Errorf("with more behind: %+v, %v", got, err)
	}
}

func TestMetaCutShort(t *testing.T) {
	whole := Meta{Standing: standing(), API: "10.0.0.1:6443", Release: "v1"}.Encode()
	for n := range whole {
		if m, err := DecodeMeta(whole[:n]); err == nil {
			t.Errorf("%d of %d bytes were read as %+v", n, len(whole), m)
		}
	}
}

func FuzzDecodeMeta(f *testing.F) {
	f.Add([]byte(nil))
	f.Add(Meta{}.Encode())
	f.Add(Meta{Standing: standing(), API: "10.0.0.1:6443", Release: "v1"}.Encode())
	f.Add([]byte{metaVersion, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 1})
	f.Fuzz(func(t *testing.T, data []byte) {
		m, err := DecodeMeta(data)
		if err != nil {
			return
		}
		m.API, m.Release = string(clip(m.API)), string(clip(m.Release))
		again, err := DecodeMeta(m.Encode())
		if err != nil || cmp.Diff(m, again) != "" {
			t.Errorf("%x is %+v, and after a second trip %+v, %v", data, m, again, err)
		}
		if !bytes.Equal(m.Encode(), again.Encode()) {
			t.Error("encodings differ")
		}
	})
}
