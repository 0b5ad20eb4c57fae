package disk

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// outage makes images of what a power failure may leave of a log from which files are removed: any of
// those whose removal was not synced yet can be there again.
type outage struct {
	t      *testing.T
	dir    string
	before map[string][]byte // the log's files as they were, by path
	synced map[string]bool   // of these, what is gone for good
	images []string
}

// watch begins with the log as it is now.
func (o *outage) watch(d *taken) {
	o.t.Helper()
	o.before, o.synced = map[string][]byte{}, map[string]bool{}
	for _, s := range d.Log.segs {
		b, err := os.ReadFile(s.file.Name())
		if err != nil {
			o.t.Fatal(err)
		}
		o.before[s.file.Name()] = b
	}
}

func (o *outage) probe(op Op, name string) error {
	if o.before == nil || !strings.Contains(name, string(filepath.Separator)+logName) || op != Synced && op != SyncedDir {
		return nil
	}
	var dirty []string
	for f := range o.before {
		if _, err := os.Stat(f); err != nil && !o.synced[f] {
			dirty = append(dirty, f)
		}
	}
	for set := range 1 << len(dirty) {
		image := filepath.Join(o.t.TempDir(), "state")
		if err := os.CopyFS(image, os.DirFS(o.dir)); err != nil {
			return err
		}
		for i, f := range dirty {
			if rel, _ := filepath.Rel(o.dir, f); set&(1<<i) != 0 {
				if err := os.WriteFile(filepath.Join(image, rel), o.before[f], fileMode); err != nil {
					return err
				}
			}
		}
		o.images = append(o.images, image)
	}
	if op == SyncedDir {
		for _, f := range dirty {
			o.synced[f] = true
		}
	}
	return nil
}

// Power fails while entries are dropped that lie in several files, at either end: what is left is a
// log, with everything that was not to go.
func TestPowerFailureWhileEntriesAreDropped(t *testing.T) {
	const last = 120 // in several files
	for _, x := range []struct {
		name               string
		from, to           uint64 // dropped
		keepFrom, keepUpTo uint64
	}{{"end", 31, last, 1, 30}, {"beginning", 1, 90, 91, last}, {"all", 1, last, 1, 0}} {
		t.Run(x.name, func(t *testing.T) {
			c := testConfig(t.TempDir())
			o := &outage{t: t, dir: c.Dir}
			c.Probe = o.probe
			d := mustOpen(t, c)
			for i := uint64(1); i <= last; i++ {
				if err := d.Log.StoreLog(entry(i, 1, make([]byte, 100))); err != nil {
					t.Fatal(err)
				}
			}
			if x.from == 1 && x.to < last {
				snapshot(t, d, x.to)
			}
			o.watch(d)
			if len(o.before) < 4 {
				t.Fatalf("only %d files", len(o.before))
			}
			if err := d.Log.DeleteRange(x.from, x.to); err != nil {
				t.Fatal(err)
			}
			o.before = nil
			_ = d.Close()
			if len(o.images) < 3 {
				t.Fatalf("only %d images", len(o.images))
			}
			for i, image := range o.images {
				d := mustOpen(t, testConfig(image))
				for index := x.keepFrom; index <= x.keepUpTo; index++ {
					if got := entry(0, 0, nil); d.Log.GetLog(index, got) != nil || got.Index != index {
						t.Fatalf("image %d of %d: entry %d is gone", i, len(o.images), index)
					}
				}
				_ = d.Close()
			}
		})
	}
}
