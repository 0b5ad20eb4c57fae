package disk

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"

	"github.com/podman-swarm/podman-swarm/internal/state/codec"
)

// Current says which lineage a replica follows.
type Current struct {
	Lineage string `json:"lineage"`
	// Server is the replica's name in it. A replica that lost its data gets a new one, so that
	// nobody takes it for the one that voted.
	Server string `json:"server"`
}

// Disk is the open files of a replica.
type Disk struct {
	Current   Current
	Log       *Log
	Meta      *Meta
	Snapshots *Snapshots
	lock      *os.File
}

// Config says which directory to open.
type Config struct {
	Dir string
	Log *slog.Logger
	// Segment is the size of log files in bytes; 0: 8 MB.
	Segment int64
	// New says what a directory in which there is nothing becomes.
	New Current
	// Init fills the new stores. They become visible when it has returned without an error.
	Init func(*Disk) error
}

const (
	lockName     = "lock"
	currentName  = "current"
	raftName     = "raft"
	metaName     = "meta"
	logName      = "log"
	snapName     = "snapshots"
	unfinished   = ".new-"
	currentMagic = "podman-swarm state"
	// currentVersion stands for the layout of the directory too.
	currentVersion = 1
)

// Open takes the directory's lock and opens what is there, or creates it when there is nothing.
func Open(c Config) (*Disk, error) {
	if c.Segment == 0 {
		c.Segment = defaultSegment
	}
	if err := os.MkdirAll(filepath.Join(c.Dir, raftName), dirMode); err != nil {
		return nil, err
	}
	lock, err := lockFile(filepath.Join(c.Dir, lockName))
	if err != nil {
		return nil, err
	}
	d, err := openLocked(c)
	if err != nil {
		return nil, errors.Join(err, lock.Close())
	}
	d.lock = lock
	// From here on Raft decides, and it must never go on without its vote on disk.
	d.Meta.mu.Lock()
	d.Meta.patient = true
	d.Meta.mu.Unlock()
	return d, nil
}

func openLocked(c Config) (*Disk, error) {
	cur, err := readCurrent(c.Dir)
	if errors.Is(err, os.ErrNotExist) {
		return create(c)
	} else if err != nil {
		return nil, err
	}
	dir := filepath.Join(c.Dir, raftName, cur.Lineage)
	// A crash right after "current" was written: the rename is all that is missing.
	fresh := filepath.Join(c.Dir, raftName, unfinished+cur.Lineage)
	if _, err := os.Stat(dir); errors.Is(err, os.ErrNotExist) {
		if err := os.Rename(fresh, dir); err != nil {
			return nil, damage(c.Dir, dir, "it is missing")
		}
		if err := syncDir(filepath.Dir(dir)); err != nil {
			return nil, err
		}
	}
	return openLineage(c, cur, dir)
}

func openLineage(c Config, cur Current, dir string) (*Disk, error) {
	d := &Disk{Current: cur}
	var err error
	if d.Meta, err = openMeta(c.Dir, filepath.Join(dir, metaName), c.Log); err != nil {
		return nil, err
	}
	if d.Snapshots, err = openSnapshots(c.Dir, filepath.Join(dir, snapName), d.Meta, c.Log); err != nil {
		return nil, errors.Join(missing(c.Dir, err), d.Meta.close())
	}
	d.Log, err = openLog(logConfig{
		root: c.Dir, dir: filepath.Join(dir, logName), log: c.Log, meta: d.Meta,
		snapshot: d.Snapshots.newest(), size: c.Segment,
	})
	if err != nil {
		return nil, errors.Join(missing(c.Dir, err), d.Meta.close())
	}
	return d, nil
}

// missing turns "no such file" into damage: everything that is opened was there before.
func missing(root string, err error) error {
	var p *os.PathError
	if errors.As(err, &p) && errors.Is(err, os.ErrNotExist) {
		return damage(root, p.Path, "it is missing")
	}
	return err
}

// create begins a new store: everything under a name of its own, then "current", which makes it
// exist, then the final name.
func create(c Config) (*Disk, error) {
	parent := filepath.Join(c.Dir, raftName)
	entries, err := os.ReadDir(parent)
	if err != nil {
		return nil, err
	}
	for _, e := range entries {
		if name := filepath.Join(parent, e.Name()); len(e.Name()) < len(unfinished) || e.Name()[:len(unfinished)] != unfinished {
			return nil, damage(c.Dir, filepath.Join(c.Dir, currentName), "it is missing, but %s holds state", name)
		} else if err := os.RemoveAll(name); err != nil {
			return nil, err
		}
	}
	dir := filepath.Join(parent, unfinished+c.New.Lineage)
	for _, sub := range []string{logName, snapName} {
		if err := os.MkdirAll(filepath.Join(dir, sub), dirMode); err != nil {
			return nil, err
		}
	}
	if err := fill(c, dir); err != nil {
		return nil, errors.Join(err, os.RemoveAll(dir))
	}
	if err := writeCurrent(c.Dir, c.New); err != nil {
		return nil, err
	}
	return openLocked(c)
}

// fill runs Init on the new stores and closes them.
func fill(c Config, dir string) error {
	m, err := createMeta(filepath.Join(dir, metaName), c.Log)
	if err != nil {
		return err
	}
	d := &Disk{Current: c.New, Meta: m, Snapshots: &Snapshots{root: c.Dir, dir: filepath.Join(dir, snapName), log: c.Log, meta: m}}
	d.Log = newLog(logConfig{root: c.Dir, dir: filepath.Join(dir, logName), log: c.Log, meta: m, size: c.Segment})
	if c.Init != nil {
		err = c.Init(d)
	}
	err = errors.Join(err, d.Log.close(), m.close(), syncDir(dir), syncDir(filepath.Dir(dir)))
	return err
}

// Release ends the wait of a vote for a disk that fails, so that Raft can be stopped.
func (d *Disk) Release() { d.Meta.impatient() }

// Close closes all files and gives the lock back.
func (d *Disk) Close() error {
	return errors.Join(d.Log.close(), d.Meta.close(), d.lock.Close())
}

// readCurrent reads the file that says which lineage counts.
func readCurrent(dir string) (Current, error) {
	name := filepath.Join(dir, currentName)
	b, err := os.ReadFile(name)
	if err != nil {
		return Current{}, err
	}
	var version, sum uint32
	var cur Current
	lines := bytes.SplitN(b, []byte("\n"), 4)
	if len(lines) != 4 || len(lines[3]) != 0 {
		return cur, damage(dir, name, "it is cut short")
	}
	if _, err := fmt.Sscanf(string(lines[2]), "crc32c %08x", &sum); err != nil ||
		sum != crc(b[:len(lines[0])+len(lines[1])+2]) || fmt.Sprintf("crc32c %08x", sum) != string(lines[2]) {
		return cur, damage(dir, name, "its checksum does not match")
	}
	if _, err := fmt.Sscanf(string(lines[0]), currentMagic+" %d", &version); err != nil {
		return cur, damage(dir, name, "its header is unreadable")
	}
	if err := codec.CheckVersion(name, version, currentVersion); err != nil {
		return cur, err
	}
	if err := json.Unmarshal(lines[1], &cur); err != nil || cur.Lineage == "" || cur.Server == "" {
		return cur, damage(dir, name, "it names no lineage")
	}
	return cur, nil
}

func writeCurrent(dir string, cur Current) error {
	body, err := json.Marshal(cur)
	if err != nil {
		return err
	}
	b := fmt.Appendf(nil, "%s %d\n%s\n", currentMagic, currentVersion, body)
	b = fmt.Appendf(b, "crc32c %08x\n", crc(b))
	return replaceFile(filepath.Join(dir, currentName), b)
}
