package home

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/podman-swarm/podman-swarm/internal/state/disk"
)

// SetAside moves everything, damaged as it is, away, and returns where it is now. What is left is an empty
// directory; until there is state in it, a file beside it says which lineage that is to be of. Without it
// the founder of a swarm, which has been told to join none, would begin another one when power is lost, or
// the disk is full, just then.
func (h *Home) SetAside(now time.Time, join string) (string, error) {
	if err := h.remember(join); err != nil {
		return "", err
	}
	return h.root.SetAside(now)
}

// Wanted is the lineage that a replica must follow whose state was set aside; empty: any.
func (h *Home) Wanted() (string, error) {
	if h.root == nil {
		return "", nil
	}
	b, err := os.ReadFile(h.note())
	if errors.Is(err, fs.ErrNotExist) {
		return "", nil
	}
	return strings.TrimSpace(string(b)), err
}

// forget is called when there is state.
func (h *Home) forget() error {
	if err := os.Remove(h.note()); !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return nil
}

// note is named like what a crash leaves of writing the directory: who removes that removes the note too, and
// nobody who begins anew there is told to follow what was.
func (h *Home) note() string {
	parent, name := filepath.Split(filepath.Clean(h.cfg.Dir))
	return filepath.Join(parent, "."+name+".joins")
}

// remember writes the note so that a power failure leaves it whole.
func (h *Home) remember(join string) error {
	name, dir := h.note(), filepath.Dir(h.note())
	fresh := name + ".tmp"
	if err := h.probe(disk.Write, fresh); err != nil {
		return err
	}
	f, err := os.OpenFile(fresh, os.O_CREATE|os.O_TRUNC|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	_, err = f.WriteString(join + "\n")
	if err := errors.Join(err, h.sync(f, disk.Sync, disk.Synced), f.Close()); err != nil {
		return errors.Join(err, os.Remove(fresh))
	}
	if err := os.Rename(fresh, name); err != nil {
		return err
	}
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	return errors.Join(h.sync(d, disk.SyncDir, disk.SyncedDir), d.Close())
}

func (h *Home) sync(f *os.File, before, after disk.Op) error {
	err := h.probe(before, f.Name())
	if err == nil {
		err = f.Sync()
	}
	if err == nil {
		err = h.probe(after, f.Name())
	}
	return err
}

// probe tells simulations what happens to files.
func (h *Home) probe(op disk.Op, name string) error {
	if h.cfg.Probe == nil {
		return nil
	}
	return h.cfg.Probe(op, name)
}
