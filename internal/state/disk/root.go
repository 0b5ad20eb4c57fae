package disk

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"time"
)

// Root is a directory that this process has taken.
type Root struct {
	cfg  Config
	lock *os.File
}

// Take takes the directory's lock; Close gives it back.
func Take(c Config) (*Root, error) {
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
	return &Root{cfg: c, lock: lock}, nil
}

// Close gives the directory back.
func (r *Root) Close() error { return r.lock.Close() }

// SetAside moves the directory, damage and all, to a sibling, takes an empty one in its place and
// returns the sibling's name. What was open in it stays so.
func (r *Root) SetAside(now time.Time) (string, error) {
	aside := filepath.Clean(r.cfg.Dir) + ".damaged-" + now.UTC().Format("20060102T150405.000")
	if err := os.Rename(r.cfg.Dir, aside); err != nil {
		return "", err
	}
	next, err := Take(r.cfg)
	if err != nil {
		return "", errors.Join(err, os.RemoveAll(r.cfg.Dir), os.Rename(aside, r.cfg.Dir))
	}
	old := r.lock
	r.lock = next.lock
	return aside, errors.Join(r.cfg.Probe.syncDir(filepath.Dir(aside)), old.Close())
}

// Open opens the lineage that this replica follows; os.ErrNotExist: there is none yet.
func (r *Root) Open() (*Disk, error) {
	cur, err := readCurrent(r.cfg.Dir)
	if errors.Is(err, os.ErrNotExist) {
		if err := r.empty(); err != nil {
			return nil, err
		}
		return nil, fs.ErrNotExist
	} else if err != nil {
		return nil, err
	}
	dir := r.path(cur.Lineage)
	// A crash right after "current" was written: the rename is all that is missing.
	if _, err := os.Stat(dir); errors.Is(err, os.ErrNotExist) {
		if err := os.Rename(r.path(unfinished+cur.Lineage), dir); err != nil {
			return nil, damage(r.cfg.Dir, dir, "it is missing")
		}
		if err := r.cfg.Probe.syncDir(filepath.Dir(dir)); err != nil {
			return nil, err
		}
	}
	if err := r.sweep(cur); err != nil {
		return nil, err
	}
	d, err := openLineage(r.cfg, cur, dir)
	if err != nil {
		return nil, err
	}
	// From here on Raft decides, and it must never go on without its vote on disk. What was read may
	// be there only in memory; see Log.settle.
	d.Meta.mu.Lock()
	err = d.Meta.write(d.Meta.values)
	d.Meta.patient = true
	d.Meta.mu.Unlock()
	if err != nil {
		return nil, errors.Join(err, d.Close())
	}
	return d, nil
}

func (r *Root) path(lineage string) string { return filepath.Join(r.cfg.Dir, raftName, lineage) }

// empty makes sure that nothing is forgotten where "current" is missing.
func (r *Root) empty() error {
	entries, err := os.ReadDir(r.path(""))
	if err != nil {
		return err
	}
	for _, e := range entries {
		if !strings.HasPrefix(e.Name(), unfinished) {
			return damage(r.cfg.Dir, filepath.Join(r.cfg.Dir, currentName), "it is missing, but %s holds state", r.path(e.Name()))
		}
	}
	return nil
}

// sweep removes the lineages that are neither followed nor needed any more.
func (r *Root) sweep(cur Current) error {
	entries, err := os.ReadDir(r.path(""))
	if err != nil {
		return err
	}
	for _, e := range entries {
		if name := e.Name(); name != cur.Lineage && (cur.Former == nil || name != cur.Former.Lineage) {
			if err := os.RemoveAll(r.path(name)); err != nil {
				return err
			}
		}
	}
	return nil
}

// Begin makes new stores, has init fill them, and makes them the ones that this replica follows.
// They come first under a name of their own; then "current" makes them count; then they get the
// final name. The lineage followed until now is removed unless next says that it is needed. Until
// Begin returns without an error, nothing has changed.
func (r *Root) Begin(next Current, init func(*Disk) error) (*Disk, error) {
	if cur, err := readCurrent(r.cfg.Dir); err == nil && cur.Lineage == next.Lineage {
		return nil, fmt.Errorf("lineage %s is followed already", cur.Lineage)
	}
	fresh := r.path(unfinished + next.Lineage)
	for _, old := range []string{fresh, r.path(next.Lineage)} {
		if err := os.RemoveAll(old); err != nil {
			return nil, err
		}
	}
	for _, sub := range []string{logName, snapName} {
		if err := os.MkdirAll(filepath.Join(fresh, sub), dirMode); err != nil {
			return nil, err
		}
	}
	if err := r.fill(next, fresh, init); err != nil {
		return nil, errors.Join(err, os.RemoveAll(fresh))
	}
	if err := writeCurrent(r.cfg.Probe, r.cfg.Dir, next); err != nil {
		return nil, err
	}
	return r.Open()
}

// fill runs init on the new stores and closes them.
func (r *Root) fill(next Current, dir string, init func(*Disk) error) error {
	m, err := createMeta(filepath.Join(dir, metaName), r.cfg.Probe, r.cfg.Log)
	if err != nil {
		return err
	}
	d := &Disk{Current: next, Meta: m, Snapshots: &Snapshots{root: r.cfg.Dir, dir: filepath.Join(dir, snapName), log: r.cfg.Log, meta: m}}
	d.Log = newLog(logConfig{root: r.cfg.Dir, dir: filepath.Join(dir, logName), log: r.cfg.Log, meta: m, snaps: d.Snapshots, size: r.cfg.Segment})
	if init != nil {
		err = init(d)
	}
	return errors.Join(err, d.Log.close(), m.close(), r.cfg.Probe.syncDir(dir), r.cfg.Probe.syncDir(filepath.Dir(dir)))
}

// Former opens the lineage that this replica came from, for reading.
func (r *Root) Former(cur Current) (*Disk, error) {
	return openLineage(r.cfg, Current{Lineage: cur.Former.Lineage, Server: cur.Former.Server}, r.path(cur.Former.Lineage))
}

// Settle forgets the former lineage: this replica has all of the one it follows.
func (r *Root) Settle(cur Current) error {
	cur.Former = nil
	if err := writeCurrent(r.cfg.Probe, r.cfg.Dir, cur); err != nil {
		return err
	}
	return r.sweep(cur)
}

// Retreat goes back to the former lineage. The stores of the other must be closed.
func (r *Root) Retreat(cur Current) error {
	back := Current{Lineage: cur.Former.Lineage, Server: cur.Former.Server}
	if err := writeCurrent(r.cfg.Probe, r.cfg.Dir, back); err != nil {
		return err
	}
	return r.sweep(back)
}

func openLineage(c Config, cur Current, dir string) (*Disk, error) {
	d := &Disk{Current: cur}
	var err error
	if d.Meta, err = openMeta(c.Dir, filepath.Join(dir, metaName), c.Probe, c.Log); err != nil {
		return nil, err
	}
	if d.Snapshots, err = openSnapshots(c.Dir, filepath.Join(dir, snapName), d.Meta, c.Log); err != nil {
		return nil, errors.Join(missing(c.Dir, err), d.Meta.close())
	}
	d.Log, err = openLog(logConfig{
		root: c.Dir, dir: filepath.Join(dir, logName), log: c.Log, meta: d.Meta,
		snaps: d.Snapshots, size: c.Segment,
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
