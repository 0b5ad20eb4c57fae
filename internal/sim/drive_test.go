package sim

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"path/filepath"
	"sync"
	"syscall"
	"testing"

	"github.com/podman-swarm/podman-swarm/internal/state/disk"
)

// drive is a node's disk: real files, and what of them would survive a power failure. That is, of a
// file what was there when it was last synced, of a directory the names it had then. A file is known
// by its inode, kept open so that no other gets the number.
type drive struct {
	t    *testing.T
	rnd  *rand.Rand
	base string // holds one directory per power failure

	mu    sync.Mutex
	dir   string // of the store now
	boots int
	open  map[uint64]*os.File
	bytes map[uint64][]byte            // of files that were synced
	names map[uint64]map[string]uint64 // of directories that were synced
	fault func(op disk.Op, name string) error
	life  int // counts power failures; who asks for an older one is dead
}

var errPower = errors.New("no power")

func newDrive(t *testing.T, rnd *rand.Rand, base string) *drive {
	t.Helper()
	d := &drive{t: t, rnd: rnd, base: base, dir: filepath.Join(base, "0", "state")}
	if err := os.MkdirAll(d.dir, 0o700); err != nil {
		t.Fatal(err)
	}
	d.forget()
	return d
}

func (d *drive) forget() {
	for _, f := range d.open {
		_ = f.Close()
	}
	d.open, d.bytes, d.names = map[uint64]*os.File{}, map[uint64][]byte{}, map[uint64]map[string]uint64{}
}

// probe is what the store of this boot tells.
func (d *drive) probe() disk.Probe {
	d.mu.Lock()
	defer d.mu.Unlock()
	life := d.life
	return func(op disk.Op, name string) error {
		d.mu.Lock()
		defer d.mu.Unlock()
		if d.life != life {
			return errPower
		}
		switch op {
		case disk.Synced:
			return d.synced(name)
		case disk.SyncedDir:
			return d.syncedDir(name)
		case disk.Write, disk.Sync, disk.SyncDir:
		}
		if d.fault != nil {
			return d.fault(op, name)
		}
		return nil
	}
}

// fail makes writes and syncs fail; nil: they work again.
func (d *drive) fail(fault func(op disk.Op, name string) error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.fault = fault
}

func inode(info os.FileInfo) uint64 { return info.Sys().(*syscall.Stat_t).Ino }

// hold keeps a file open and returns its inode.
func (d *drive) hold(name string) (uint64, error) {
	f, err := os.Open(name)
	if err != nil {
		return 0, err
	}
	info, err := f.Stat()
	if err != nil {
		return 0, errors.Join(err, f.Close())
	}
	ino := inode(info)
	if d.open[ino] != nil {
		return ino, f.Close()
	}
	d.open[ino] = f
	return ino, nil
}

func (d *drive) synced(name string) error {
	// A log is synced at every entry: its file is held already, and what was safe before has room for it.
	info, err := os.Stat(name)
	if err != nil {
		return err
	}
	ino := inode(info)
	if d.open[ino] == nil {
		if ino, err = d.hold(name); err != nil {
			return err
		}
	}
	b := d.bytes[ino]
	if size := info.Size(); int64(cap(b)) < size {
		b = make([]byte, size)
	} else {
		b = b[:size]
	}
	n, err := d.open[ino].ReadAt(b, 0)
	if errors.Is(err, io.EOF) {
		err = nil
	}
	d.bytes[ino] = b[:n]
	return err
}

func (d *drive) syncedDir(dir string) error {
	ino, err := d.hold(dir)
	if err != nil {
		return err
	}
	names, err := d.list(dir)
	if err == nil {
		d.names[ino] = names
	}
	return err
}

// list is a directory as it is now.
func (d *drive) list(dir string) (map[string]uint64, error) {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return nil, err
	}
	names := map[string]uint64{}
	for _, e := range entries {
		ino, err := d.hold(filepath.Join(dir, e.Name()))
		if errors.Is(err, os.ErrNotExist) {
			continue // removed meanwhile
		} else if err != nil {
			return nil, err
		}
		names[e.Name()] = ino
	}
	return names, nil
}

// stop ends what the present boot writes. What survives, of a power failure or of a killed process, is
// in a directory of its own, which is the store's from now on.
func (d *drive) stop(power bool) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.life++
	d.boots++
	d.fault = nil
	old := d.dir
	next := filepath.Join(d.base, fmt.Sprint(d.boots), "state")
	root, err := d.hold(old)
	if err == nil && power {
		err = d.restore(root, next)
	} else if err == nil {
		err = os.CopyFS(next, os.DirFS(old))
	} else if errors.Is(err, os.ErrNotExist) {
		err = os.MkdirAll(next, 0o700)
	}
	if err != nil {
		return fmt.Errorf("stop disk: %w", err)
	}
	d.dir = next
	d.forget()
	return d.settle(next)
}

// restore writes what survives of a directory.
func (d *drive) restore(ino uint64, to string) error {
	if err := os.MkdirAll(to, 0o700); err != nil {
		return err
	}
	names := d.names[ino]
	// What was not synced may have reached the disk all the same.
	if d.rnd.IntN(2) == 0 {
		if now, err := d.list(fmt.Sprintf("/proc/self/fd/%d", d.open[ino].Fd())); err == nil {
			names = now
		}
	}
	for name, child := range names {
		f := d.open[child]
		info, err := f.Stat()
		if err != nil {
			return err
		}
		path := filepath.Join(to, name)
		if info.IsDir() {
			err = d.restore(child, path)
		} else {
			err = os.WriteFile(path, d.survives(child, f, info.Size()), 0o600)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// survives is what a file holds after a power failure: of what was not synced, any blocks, or none.
func (d *drive) survives(ino uint64, f *os.File, size int64) []byte {
	safe := d.bytes[ino]
	now := make([]byte, size)
	if n, err := f.ReadAt(now, 0); n < len(now) && err != nil {
		now = now[:n]
	}
	if bytes.Equal(safe, now) || d.rnd.IntN(2) == 0 {
		return safe
	}
	out := append([]byte(nil), safe...)
	if len(now) > len(out) && d.rnd.IntN(2) == 0 {
		out = append(out, make([]byte, len(now)-len(out))...) // the size came first
	}
	const block = 512
	for at := 0; at < min(len(out), len(now)); at += block {
		if end := min(at+block, len(out), len(now)); d.rnd.IntN(2) == 0 {
			copy(out[at:end], now[at:end])
		}
	}
	return out
}

// settle takes what is there for durable: the machine was off.
func (d *drive) settle(dir string) error {
	names, err := d.list(dir)
	if err != nil {
		return err
	}
	ino, err := d.hold(dir)
	if err != nil {
		return err
	}
	d.names[ino] = names
	for name := range names {
		path := filepath.Join(dir, name)
		info, err := os.Stat(path)
		switch {
		case err != nil:
			return err
		case info.IsDir():
			err = d.settle(path)
		default:
			err = d.synced(path)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// wipe is a new disk.
func (d *drive) wipe() error {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.life++
	d.boots++
	d.fault = nil
	d.forget()
	d.dir = filepath.Join(d.base, fmt.Sprint(d.boots), "state")
	return os.MkdirAll(d.dir, 0o700)
}

// damage changes one of the newest log's files of a node that is off.
func (d *drive) damage(how func(name string, b []byte) []byte) error {
	logs, err := filepath.Glob(filepath.Join(d.dir, "raft", "*", "log", "*.log"))
	if err != nil || len(logs) == 0 {
		return fmt.Errorf("no log in %s (%w)", d.dir, err)
	}
	name := logs[len(logs)-1]
	b, err := os.ReadFile(name)
	if err != nil {
		return err
	}
	return os.WriteFile(name, how(name, b), 0o600)
}

// flip turns one bit of a record somewhere in the middle.
func flip(_ string, b []byte) []byte {
	end := len(bytes.TrimRight(b, "\x00"))
	b[(32+end)/2] ^= 4
	return b
}

// shrink drops the newer half of the log.
func shrink(_ string, b []byte) []byte {
	end := len(bytes.TrimRight(b, "\x00"))
	return b[:(32+end)/2]
}
