package disk

import (
	"bytes"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"pgregory.net/rapid"
)

func newMeta(t *testing.T) (m *Meta, name string) {
	t.Helper()
	name = filepath.Join(t.TempDir(), metaName)
	m, err := createMeta(name, nil, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	return m, name
}

// A crash between the two copies: the newer one counts, whichever it is, and the other is mended.
func TestMetaTakesTheNewerCopy(t *testing.T) {
	m, name := newMeta(t)
	if err := m.SetUint64([]byte("CurrentTerm"), 1); err != nil {
		t.Fatal(err)
	}
	older, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	if err := m.SetUint64([]byte("CurrentTerm"), 2); err != nil {
		t.Fatal(err)
	}
	newer, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	if err := m.close(); err != nil {
		t.Fatal(err)
	}
	torn := bytes.Repeat([]byte{0x55}, metaBlock)
	for what, c := range map[string]struct {
		content []byte
		term    uint64
	}{
		"first copy newer":  {append(bytes.Clone(newer[:metaBlock]), older[metaBlock:]...), 2},
		"second copy newer": {append(bytes.Clone(older[:metaBlock]), newer[metaBlock:]...), 2},
		"first copy torn":   {append(bytes.Clone(torn), older[metaBlock:]...), 1},
		"second copy torn":  {append(bytes.Clone(newer[:metaBlock]), torn...), 2},
	} {
		if err := os.WriteFile(name, c.content, fileMode); err != nil {
			t.Fatal(err)
		}
		var said strings.Builder
		for i := range 2 {
			m, err := openMeta("", name, nil, slog.New(slog.NewTextHandler(&said, nil)))
			if err != nil {
				t.Fatalf("%s: %v", what, err)
			}
			if got, err := m.GetUint64([]byte("CurrentTerm")); got != c.term || err != nil {
				t.Errorf("%s: term %d, %v, want %d", what, got, err, c.term)
			}
			if err := m.close(); err != nil {
				t.Fatal(err)
			}
			if n := strings.Count(said.String(), "mended"); strings.Contains(what, "torn") && n != 1 {
				t.Errorf("%s: after opening %d times it was mended %d times", what, i+1, n)
			}
		}
	}
}

// signal tells that something was logged.
type signal chan struct{}

func (s signal) Write(b []byte) (int, error) {
	s <- struct{}{}
	return len(b), nil
}

// A vote that cannot be stored is not cast: Set waits, and ends its goroutine when the replica stops.
func TestVoteWaitsForTheDisk(t *testing.T) {
	m, name := newMeta(t)
	m.patient = true
	good := m.file
	bad, err := os.Open(name)
	if err != nil {
		t.Fatal(err)
	}
	m.file = bad // read only
	refused := make(signal, 8)
	m.log = slog.New(slog.NewTextHandler(refused, nil))
	voted := make(chan error, 1)
	go func() { voted <- m.Set([]byte("LastVoteCand"), []byte("n2")) }()
	<-refused
	select {
	case err := <-voted:
		t.Fatalf("voted although nothing was stored: %v", err)
	default:
	}
	m.mu.Lock()
	m.file = good
	m.mu.Unlock()
	if err := <-voted; err != nil {
		t.Fatal(err)
	}
	m.mu.Lock()
	m.file = bad
	m.mu.Unlock()
	ended, returned := make(chan struct{}), false
	go func() {
		defer close(ended)
		_ = m.Set([]byte("LastVoteCand"), []byte("n3"))
		returned = true
	}()
	m.impatient()
	<-ended
	if returned {
		t.Error("Set returned as if the vote were stored")
	}
	_ = bad.Close()
	m.file = good
	if err := m.close(); err != nil {
		t.Fatal(err)
	}
}

func TestMetaCodec(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		m := &Meta{seq: rapid.Uint64().Draw(t, "seq")}
		want := rapid.MapOfN(rapid.StringN(1, 10, 40), rapid.SliceOfN(rapid.Byte(), 0, 60), 0, 12).Draw(t, "values")
		block, err := m.encode(want)
		if err != nil {
			t.Fatal(err)
		}
		seq, got, err := decodeMeta("meta", block)
		if err != nil || seq != m.seq || len(got) != len(want) {
			t.Fatalf("got %d, %v, %v", seq, got, err)
		}
		for k, v := range want {
			if !bytes.Equal(got[k], v) {
				t.Fatalf("%q is %x, want %x", k, got[k], v)
			}
		}
	})
}

func FuzzDecodeMeta(f *testing.F) {
	m := &Meta{seq: 3}
	block, err := m.encode(map[string][]byte{"CurrentTerm": {0, 0, 0, 0, 0, 0, 0, 1}})
	if err != nil {
		f.Fatal(err)
	}
	f.Add(block)
	f.Fuzz(func(_ *testing.T, b []byte) {
		_, _, _ = decodeMeta("meta", b)
		block := make([]byte, metaBlock)
		copy(block, b)
		_, _, _ = decodeMeta("meta", block)
	})
}
