package disk

import (
	"bytes"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/hashicorp/raft"
	"go.uber.org/goleak"
	"pgregory.net/rapid"
)

func TestMain(m *testing.M) {
	// Thousands of tiny synced writes: what they mean is tested here, not the disk under them.
	if info, err := os.Stat("/dev/shm"); err == nil && info.IsDir() {
		_ = os.Setenv("TMPDIR", "/dev/shm")
	}
	goleak.VerifyTestMain(m)
}

const testSegment = 4 << 10

func testConfig(dir string) Config {
	return Config{
		Dir: dir, Log: slog.New(slog.DiscardHandler), Segment: testSegment,
	}
}

// taken is a directory and what is open in it.
type taken struct {
	*Disk
	root *Root
}

// Open takes a directory and opens what is there, or begins a lineage.
func Open(c Config) (*taken, error) {
	r, err := Take(c)
	if err != nil {
		return nil, err
	}
	d, err := r.Open()
	if errors.Is(err, os.ErrNotExist) {
		d, err = r.Begin(Current{Lineage: "l1", Server: "n1.aa"}, nil)
	}
	if err != nil {
		return nil, errors.Join(err, r.Close())
	}
	return &taken{d, r}, nil
}

func (d *taken) Close() error { return errors.Join(d.Disk.Close(), d.root.Close()) }

func mustOpen(t fataler, c Config) *taken {
	t.Helper()
	d, err := Open(c)
	if err != nil {
		t.Fatalf("open: %v", err)
	}
	return d
}

type fataler interface {
	Helper()
	Fatalf(format string, args ...any)
}

func entry(index, term uint64, data []byte) *raft.Log {
	return &raft.Log{Index: index, Term: term, Data: data, AppendedAt: time.Unix(int64(index), 5)}
}

func same(a, b *raft.Log) bool {
	return a.Index == b.Index && a.Term == b.Term && a.Type == b.Type && bytes.Equal(a.Data, b.Data) &&
		bytes.Equal(a.Extensions, b.Extensions) && a.AppendedAt.Equal(b.AppendedAt)
}

// The log against a plain slice, with appends, cuts at both ends and reopening in between.
func TestLogIsASequence(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		dir, err := os.MkdirTemp("", "psw-log") //nolint:usetesting // one per check, not per test
		if err != nil {
			t.Fatal(err)
		}
		defer os.RemoveAll(dir)
		d := mustOpen(t, testConfig(dir))
		defer func() { _ = d.Close() }()
		var model []*raft.Log
		next := uint64(1)
		term := uint64(1)
		check := func() {
			t.Helper()
			last, _ := d.Log.LastIndex()
			first, _ := d.Log.FirstIndex()
			if len(model) == 0 {
				if last != 0 || first != 0 {
					t.Fatalf("empty log has %d to %d", first, last)
				}
				return
			}
			if last != next-1 || first > model[0].Index {
				t.Fatalf("log has %d to %d, want %d to %d", first, last, model[0].Index, next-1)
			}
			for _, want := range model {
				var got raft.Log
				if err := d.Log.GetLog(want.Index, &got); err != nil || !same(&got, want) {
					t.Fatalf("entry %d: %+v, %v, want %+v", want.Index, got, err, want)
				}
			}
		}
		t.Repeat(map[string]func(*rapid.T){
			"append": func(t *rapid.T) {
				var group []*raft.Log
				for range rapid.IntRange(1, 5).Draw(t, "n") {
					e := entry(next, term, rapid.SliceOfN(rapid.Byte(), 0, 1500).Draw(t, "data"))
					e.Type = rapid.SampledFrom([]raft.LogType{raft.LogCommand, raft.LogNoop, raft.LogConfiguration}).Draw(t, "type")
					if rapid.Bool().Draw(t, "ext") {
						e.Extensions = []byte("ext")
					}
					group = append(group, e)
					next++
				}
				if err := d.Log.StoreLogs(group); err != nil {
					t.Fatal(err)
				}
				model = append(model, group...)
			},
			"cut end": func(t *rapid.T) {
				if len(model) == 0 {
					t.Skip()
				}
				i := rapid.IntRange(1, len(model)).Draw(t, "keep")
				if i == len(model) {
					t.Skip()
				}
				if err := d.Log.DeleteRange(model[i].Index, next-1); err != nil {
					t.Fatal(err)
				}
				model, next, term = model[:i], model[i].Index, term+1
			},
			"cut beginning": func(t *rapid.T) {
				if len(model) < 2 {
					t.Skip()
				}
				first, _ := d.Log.FirstIndex()
				i := rapid.IntRange(1, len(model)-1).Draw(t, "drop")
				if err := d.Log.DeleteRange(first, model[i-1].Index); err != nil {
					t.Fatal(err)
				}
				model = model[i:]
				snapshot(t, d, model[0].Index-1)
			},
			"drop all": func(t *rapid.T) {
				if len(model) == 0 {
					t.Skip()
				}
				first, _ := d.Log.FirstIndex()
				next += 10
				snapshot(t, d, next-1)
				if err := d.Log.DeleteRange(first, next-11); err != nil {
					t.Fatal(err)
				}
				model = nil
			},
			"reopen": func(t *rapid.T) {
				if err := d.Close(); err != nil {
					t.Fatal(err)
				}
				d = mustOpen(t, testConfig(dir))
			},
			"": func(*rapid.T) { check() },
		})
	})
}

type fatal interface {
	Helper()
	Fatal(args ...any)
}

func snapshot(t fatal, d *taken, index uint64) {
	t.Helper()
	sink, err := d.Snapshots.Create(1, index, 1, raft.Configuration{}, 1, nil)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := fmt.Fprintf(sink, "state at %d", index); err != nil {
		t.Fatal(err)
	}
	if err := sink.Close(); err != nil {
		t.Fatal(err)
	}
}

func TestLogRefusesGaps(t *testing.T) {
	d := mustOpen(t, testConfig(t.TempDir()))
	defer d.Close()
	if err := d.Log.StoreLogs([]*raft.Log{entry(1, 1, nil), entry(3, 1, nil)}); err == nil {
		t.Error("a group with a gap was stored")
	}
	if err := d.Log.StoreLog(entry(1, 1, nil)); err != nil {
		t.Fatal(err)
	}
	if err := d.Log.StoreLog(entry(3, 1, nil)); err == nil {
		t.Error("an entry behind a gap was stored")
	}
	if err := d.Log.GetLog(2, &raft.Log{}); err != raft.ErrLogNotFound { //nolint:errorlint // Raft compares
		t.Errorf("entry 2: %v, want ErrLogNotFound", err)
	}
	if got := d.Log.LastCommand(0, 1); got != 1 {
		t.Errorf("last command at %d, want 1", got)
	}
}

// A failed write leaves the log as it was, and the next one works.
func TestLogHealsAfterFailedWrite(t *testing.T) {
	dir := t.TempDir()
	d := mustOpen(t, testConfig(dir))
	if err := d.Log.StoreLog(entry(1, 1, []byte("one"))); err != nil {
		t.Fatal(err)
	}
	// A read-only handle makes the write fail, the cut after it too, so the log must refuse more.
	s := d.Log.segs[0]
	rw := s.file
	ro, err := os.Open(rw.Name())
	if err != nil {
		t.Fatal(err)
	}
	s.file = ro
	if err := d.Log.StoreLog(entry(2, 1, []byte("two"))); err == nil {
		t.Fatal("writing to a read-only file worked")
	}
	s.file = rw
	select {
	case <-d.Log.Broken():
	default:
		t.Fatal("the log is not marked as failed")
	}
	if err := d.Log.StoreLog(entry(2, 1, []byte("two"))); err == nil {
		t.Fatal("a failed log took another entry")
	}
	_ = ro.Close()
	if err := d.Close(); err != nil {
		t.Fatal(err)
	}
	d = mustOpen(t, testConfig(dir))
	defer d.Close()
	if last, _ := d.Log.LastIndex(); last != 1 {
		t.Fatalf("last entry %d, want 1", last)
	}
	if err := d.Log.StoreLog(entry(2, 1, []byte("two"))); err != nil {
		t.Fatal(err)
	}
}

func TestSecondOpenIsRefused(t *testing.T) {
	dir := t.TempDir()
	d := mustOpen(t, testConfig(dir))
	defer d.Close()
	if _, err := Open(testConfig(dir)); err == nil || !bytes.Contains([]byte(err.Error()), []byte("in use")) {
		t.Fatalf("second open: %v", err)
	}
}

func TestCrashDuringCreation(t *testing.T) {
	for _, stage := range []string{"before current", "before rename"} {
		t.Run(stage, func(t *testing.T) {
			dir := t.TempDir()
			d := mustOpen(t, testConfig(dir))
			if err := d.Close(); err != nil {
				t.Fatal(err)
			}
			final := filepath.Join(dir, "raft", "l1")
			if err := os.Rename(final, filepath.Join(dir, "raft", unfinished+"l1")); err != nil {
				t.Fatal(err)
			}
			if stage == "before current" {
				if err := os.Remove(filepath.Join(dir, "current")); err != nil {
					t.Fatal(err)
				}
			}
			d = mustOpen(t, testConfig(dir))
			if err := d.Close(); err != nil {
				t.Fatal(err)
			}
			if _, err := os.Stat(final); err != nil {
				t.Fatal(err)
			}
		})
	}
}

// After a leader's snapshot the log goes on behind it; one that comes late, when the log is already
// beyond it, takes nothing away. Only what a snapshot holds may be left out.
func TestLogGoesOnBehindASnapshot(t *testing.T) {
	dir := t.TempDir()
	d := mustOpen(t, testConfig(dir))
	if _, monotonic := any(d.Log).(raft.MonotonicLogStore); monotonic {
		t.Error("Raft would drop acknowledged entries")
	}
	append1 := func(index uint64) error { return d.Log.StoreLog(entry(index, 1, bytes.Repeat([]byte("x"), 100))) }
	for i := uint64(1); i <= 100; i++ {
		if err := append1(i); err != nil {
			t.Fatal(err)
		}
	}
	snapshot(t, d, 150)
	for _, wrong := range []uint64{100, 152} {
		if err := append1(wrong); err == nil {
			t.Errorf("entry %d was taken after 100 and a snapshot of 150", wrong)
		}
	}
	if _, err := d.Snapshots.Create(1, 149, 1, raft.Configuration{}, 1, nil); err == nil {
		t.Error("a late snapshot was taken")
	}
	for i := uint64(151); i <= 200; i++ {
		if err := append1(i); err != nil {
			t.Fatal(err)
		}
	}
	for range 2 {
		first, _ := d.Log.FirstIndex()
		last, _ := d.Log.LastIndex()
		if first != 151 || last != 200 {
			t.Fatalf("the log reaches from %d to %d, want 151 to 200", first, last)
		}
		if err := d.Close(); err != nil {
			t.Fatal(err)
		}
		d = mustOpen(t, testConfig(dir))
	}
	if err := d.Close(); err != nil {
		t.Fatal(err)
	}
}
