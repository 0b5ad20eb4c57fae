package disk

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/hashicorp/raft"
)

// contents is everything a reopened disk can tell from a log index on.
func contents(d *taken, from uint64) string {
	var b strings.Builder
	fmt.Fprintln(&b, d.Current)
	first, _ := d.Log.FirstIndex()
	first = max(first, from)
	last, _ := d.Log.LastIndex()
	for i := first; i > 0 && i <= last; i++ {
		var l raft.Log
		err := d.Log.GetLog(i, &l)
		fmt.Fprintf(&b, "%d %d %d %d %x %x %d %v\n", l.Index, l.Term, l.Type, len(l.Data), crc(l.Data), l.Extensions, l.AppendedAt.UnixNano(), err)
	}
	term, _ := d.Meta.GetUint64([]byte("CurrentTerm"))
	vote, _ := d.Meta.Get([]byte("LastVoteCand"))
	fmt.Fprintln(&b, term, string(vote))
	metas, _ := d.Snapshots.List()
	for _, m := range metas {
		if m.Index < from {
			continue
		}
		_, r, err := d.Snapshots.Open(m.ID)
		if err != nil {
			fmt.Fprintln(&b, err)
			continue
		}
		body, err := io.ReadAll(r)
		fmt.Fprintf(&b, "%+v %s %v\n", *m, body, err)
		_ = r.Close()
	}
	return b.String()
}

// needed is the newest snapshot of the sample: what is older is not needed any more.
const needed = 20

// sample makes a directory with several segments and two snapshots.
func sample(t *testing.T, dir string) string {
	t.Helper()
	d := mustOpen(t, testConfig(dir))
	for i := uint64(1); i <= 30; i += 3 {
		var group []*raft.Log
		for j := range uint64(3) {
			group = append(group, entry(i+j, 2, bytes.Repeat([]byte{byte(i + j)}, 300)))
		}
		if err := d.Log.StoreLogs(group); err != nil {
			t.Fatal(err)
		}
	}
	if err := d.Meta.SetUint64([]byte("CurrentTerm"), 2); err != nil {
		t.Fatal(err)
	}
	if err := d.Meta.Set([]byte("LastVoteCand"), []byte("n1.aa")); err != nil {
		t.Fatal(err)
	}
	snapshot(t, d, 10)
	snapshot(t, d, needed)
	want := contents(d, needed)
	if err := d.Close(); err != nil {
		t.Fatal(err)
	}
	return want
}

func files(t *testing.T, dir string) []string {
	t.Helper()
	var names []string
	err := filepath.WalkDir(dir, func(path string, e fs.DirEntry, err error) error {
		if err == nil && !e.IsDir() && e.Name() != lockName {
			names = append(names, path)
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return names
}

// checkDamage opens a damaged directory: the result is either everything that is needed or an error
// that names the file and the way back.
func checkDamage(t *testing.T, dir, file, want, how string) {
	t.Helper()
	bad, _ := os.ReadFile(file)
	d, err := Open(testConfig(dir))
	if err == nil {
		got := contents(d, needed)
		_ = d.Close()
		if got != want {
			t.Fatalf("%s: opens with other content:\n%s\nwant:\n%s", how, got, want)
		}
		return
	}
	if now, _ := os.ReadFile(file); !bytes.Equal(now, bad) {
		t.Fatalf("%s: refused with %v, but the file was changed", how, err)
	}
	var damaged *DamageError
	switch {
	case strings.Contains(err.Error(), "written by a newer version"):
	case !errors.As(err, &damaged):
		t.Fatalf("%s: %v, want a DamageError", how, err)
	case damaged.File != file && !strings.HasPrefix(file, damaged.File):
		t.Fatalf("%s: the error names %s: %v", how, damaged.File, err)
	case !strings.Contains(err.Error(), "Way back"):
		t.Fatalf("%s: no way back in %v", how, err)
	}
}

// Every file, many places: flip a byte, cut the file there, remove it.
func TestDamageIsNeverSilent(t *testing.T) {
	dir := t.TempDir()
	want := sample(t, dir)
	for _, file := range files(t, dir) {
		good, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		name, _ := filepath.Rel(dir, file)
		put := func(b []byte) {
			if err := os.WriteFile(file, b, fileMode); err != nil {
				t.Fatal(err)
			}
		}
		step := max(1, len(good)/97)
		for off := 0; off < len(good); off += step {
			bad := bytes.Clone(good)
			bad[off] ^= 0x41
			put(bad)
			checkDamage(t, dir, file, want, fmt.Sprintf("%s, byte %d flipped", name, off))
			put(good[:off])
			checkDamage(t, dir, file, want, fmt.Sprintf("%s, cut at %d", name, off))
			put(good)
		}
		if err := os.Remove(file); err != nil {
			t.Fatal(err)
		}
		checkDamage(t, dir, file, want, name+" removed")
		put(good)
	}
	// Harmless after all that.
	d := mustOpen(t, testConfig(dir))
	if got := contents(d, needed); got != want {
		t.Errorf("content changed:\n%s\nwant:\n%s", got, want)
	}
	if err := d.Close(); err != nil {
		t.Fatal(err)
	}
}

// The last group, not covered by the mark, is cut anywhere: it goes with a warning, the rest stays.
func TestUnfinishedWriteIsDropped(t *testing.T) {
	dir := t.TempDir()
	d := mustOpen(t, testConfig(dir))
	if err := d.Log.StoreLogs([]*raft.Log{entry(1, 1, []byte("one")), entry(2, 1, []byte("two"))}); err != nil {
		t.Fatal(err)
	}
	if err := d.Meta.setMark(keyLogMark, 2); err != nil {
		t.Fatal(err)
	}
	tail := d.Log.segs[0].tail
	group := []*raft.Log{entry(3, 1, []byte("three")), entry(4, 1, []byte("four")), entry(5, 1, []byte("five"))}
	if err := d.Log.StoreLogs(group); err != nil {
		t.Fatal(err)
	}
	end, name := d.Log.segs[0].tail, d.Log.segs[0].file.Name()
	crash(t, d)
	good, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	for off := tail; off < end; off++ {
		bad := bytes.Clone(good)
		bad[off] ^= 1 // power failure: later pages of the group may be there although earlier are not
		if err := os.WriteFile(name, bad, fileMode); err != nil {
			t.Fatal(err)
		}
		var warned strings.Builder
		c := testConfig(dir)
		c.Log = slog.New(slog.NewTextHandler(&warned, nil))
		d := mustOpen(t, c)
		last, _ := d.Log.LastIndex()
		if last < 2 || last > 4 || !strings.Contains(warned.String(), name) {
			t.Fatalf("byte %d flipped: log ends at %d, said %q", off, last, warned.String())
		}
		if err := d.Log.StoreLog(entry(last+1, 2, []byte("again"))); err != nil {
			t.Fatal(err)
		}
		crash(t, d)
		d = mustOpen(t, testConfig(dir))
		if again, _ := d.Log.LastIndex(); again != last+1 {
			t.Fatalf("byte %d flipped: after another entry the log ends at %d, want %d", off, again, last+1)
		}
		resetMark(t, d, 2)
		crash(t, d)
	}
}

func resetMark(t *testing.T, d *taken, mark uint64) {
	t.Helper()
	if err := d.Meta.setMark(keyLogMark, mark); err != nil {
		t.Fatal(err)
	}
}

// crash ends a disk as kill -9 does: nothing more is written.
func crash(t *testing.T, d *taken) {
	t.Helper()
	d.Log.mu.Lock()
	d.Log.closed = true
	if d.Log.timer != nil && d.Log.timer.Stop() {
		d.Log.marks.Done()
	}
	for _, s := range d.Log.segs {
		_ = s.file.Close()
	}
	d.Log.mu.Unlock()
	d.Log.marks.Wait()
	_ = d.Meta.close()
	_ = d.root.lock.Close()
}

// An acknowledged entry in the middle is damaged while entries after it are sound, no mark at all.
func TestDamageBeforeSoundEntries(t *testing.T) {
	dir := t.TempDir()
	d := mustOpen(t, testConfig(dir))
	for i := uint64(1); i <= 5; i++ {
		if err := d.Log.StoreLog(entry(i, 1, []byte("data"))); err != nil {
			t.Fatal(err)
		}
	}
	name, off := d.Log.segs[0].file.Name(), d.Log.segs[0].offset(3)
	crash(t, d)
	good, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	for i := range int64(recordHead + 4) {
		bad := bytes.Clone(good)
		bad[off+i] ^= 0x80
		if err := os.WriteFile(name, bad, fileMode); err != nil {
			t.Fatal(err)
		}
		var damaged *DamageError
		if _, err := Open(testConfig(dir)); !errors.As(err, &damaged) || damaged.File != name {
			t.Fatalf("byte %d of entry 3: %v", i, err)
		}
	}
}

func TestNewerVersionsAreRefused(t *testing.T) {
	dir := t.TempDir()
	sample(t, dir)
	bump := map[string]func([]byte) []byte{
		currentName: func(b []byte) []byte {
			lines := bytes.SplitN(b, []byte("\n"), 3)
			b = fmt.Appendf(nil, "%s %d\n%s\n", currentMagic, currentVersion+1, lines[1])
			return fmt.Appendf(b, "crc32c %08x\n", crc(b))
		},
		metaName: func(b []byte) []byte {
			for i := 0; i < len(b); i += metaBlock {
				c := b[i : i+metaBlock]
				c[len(metaMagic)+3]++
				end := metaHead + int(binary.BigEndian.Uint32(c[metaHead-4:]))
				binary.BigEndian.PutUint32(c[end:], crc(c[:end]))
			}
			return b
		},
		segmentSuffix: func(b []byte) []byte {
			b[len(segmentMagic)+3]++
			binary.BigEndian.PutUint32(b[segmentHead-4:], crc(b[:segmentHead-4]))
			return b
		},
		snapSuffix: func(b []byte) []byte {
			b[len(snapMagic)+3]++
			sum := len(snapMagic) + 8 + int(binary.BigEndian.Uint32(b[len(snapMagic)+4:]))
			binary.BigEndian.PutUint32(b[sum:], crc(b[:sum]))
			return b
		},
	}
	seen := 0
	for _, file := range files(t, dir) {
		for suffix, newer := range bump {
			if !strings.HasSuffix(file, suffix) {
				continue
			}
			seen++
			good, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			if err := os.WriteFile(file, newer(bytes.Clone(good)), fileMode); err != nil {
				t.Fatal(err)
			}
			_, err = Open(testConfig(dir))
			if err == nil || !strings.Contains(err.Error(), "written by a newer version") || !strings.Contains(err.Error(), file) {
				t.Errorf("%s: %v", file, err)
			}
			if err := os.WriteFile(file, good, fileMode); err != nil {
				t.Fatal(err)
			}
		}
	}
	if seen < len(bump) {
		t.Errorf("only %d files were tried", seen)
	}
}

// Whatever stands in a log file, opening neither panics nor hangs nor invents entries.
func FuzzSegment(f *testing.F) {
	s := &segment{base: 1, salt: 7, tail: int64(segmentHead)}
	f.Add(s.appendRecord(s.appendRecord(nil, entry(1, 1, []byte("one")), 0), entry(2, 1, []byte("two")), 1))
	f.Fuzz(func(t *testing.T, b []byte) {
		d := mustOpen(t, testConfig(t.TempDir()))
		if err := d.Log.StoreLog(entry(1, 1, nil)); err != nil {
			t.Fatal(err)
		}
		seg := d.Log.segs[0]
		if _, err := seg.file.WriteAt(b, seg.tail); err != nil {
			t.Fatal(err)
		}
		root := filepath.Dir(filepath.Dir(filepath.Dir(d.Log.dir)))
		crash(t, d)
		d, err := Open(testConfig(root))
		if err != nil {
			return
		}
		if last, _ := d.Log.LastIndex(); last != 1 {
			t.Fatalf("the log ends at %d", last)
		}
		if err := d.Close(); err != nil {
			t.Fatal(err)
		}
	})
}

func FuzzSnapshotFile(f *testing.F) {
	dir := f.TempDir()
	d, err := Open(testConfig(dir))
	if err != nil {
		f.Fatal(err)
	}
	snapshot(f, d, 1)
	if err := d.Close(); err != nil {
		f.Fatal(err)
	}
	name := filepath.Join(dir, raftName, "l1", snapName, fmt.Sprintf("%020d-%020d%s", 1, 1, snapSuffix))
	good, err := os.ReadFile(name)
	if err != nil {
		f.Fatal(err)
	}
	f.Add(good)
	f.Fuzz(func(t *testing.T, b []byte) {
		name := filepath.Join(t.TempDir(), filepath.Base(name))
		if err := os.WriteFile(name, b, fileMode); err != nil {
			t.Fatal(err)
		}
		s := &Snapshots{dir: filepath.Dir(name)}
		_, body, err := s.open(name)
		if err != nil {
			return
		}
		_, err = io.Copy(io.Discard, body)
		if err == nil && !bytes.Equal(b, good) && len(b) < len(snapMagic)+8+4+snapTrailer {
			t.Fatalf("%d bytes were taken for a snapshot", len(b))
		}
		_ = body.Close()
	})
}

// What Raft itself took back was not lost: a crash right after it is no damage.
func TestCrashAfterCut(t *testing.T) {
	for _, from := range []uint64{1, 3} {
		dir := t.TempDir()
		d := mustOpen(t, testConfig(dir))
		for i := uint64(1); i <= 5; i++ {
			if err := d.Log.StoreLog(entry(i, 1, []byte("data"))); err != nil {
				t.Fatal(err)
			}
		}
		resetMark(t, d, 5)
		if err := d.Log.DeleteRange(from, 5); err != nil {
			t.Fatal(err)
		}
		crash(t, d)
		d = mustOpen(t, testConfig(dir))
		if last, _ := d.Log.LastIndex(); last != from-1 {
			t.Errorf("cut from %d on: the log ends at %d", from, last)
		}
		if err := d.Close(); err != nil {
			t.Fatal(err)
		}
	}
}
