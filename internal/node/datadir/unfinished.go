package datadir

import (
	"errors"
	"fmt"
	"os"

	"github.com/podman-swarm/podman-swarm/internal/pki"
)

// unfinished is there while the directory is filled in several steps. Cut off in between, it would
// pass for something else: keys without a state are those of an empty swarm.
const unfinished = "unfinished"

// Begin notes that the directory is being filled from something, so that even after a power failure
// nobody takes it for whole.
func (d *Dir) Begin(from string) error { return pki.WriteFile(d.File(unfinished), []byte(from+"\n")) }

// Unfinished tells whether filling it was cut off.
func (d *Dir) Unfinished() bool {
	_, err := os.Lstat(d.File(unfinished))
	return !errors.Is(err, os.ErrNotExist) // one that cannot be looked at is not whole either
}

// Finish notes that the directory is whole.
func (d *Dir) Finish() error {
	if err := os.Remove(d.File(unfinished)); err != nil {
		return fmt.Errorf("data directory: %w", err)
	}
	dir, err := os.Open(d.path)
	if err != nil {
		return fmt.Errorf("data directory: %w", err)
	}
	if err := errors.Join(dir.Sync(), dir.Close()); err != nil {
		return fmt.Errorf("data directory: %w", err)
	}
	return nil
}
