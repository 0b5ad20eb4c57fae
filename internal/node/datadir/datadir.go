package datadir

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// version is the layout of the data directory this binary writes. It reads version-1 too.
const version = 1

// A killed agent is waited for, since its lock outlives it for a moment.
const (
	dyingTime = 5 * time.Second
	dyingPoll = 20 * time.Millisecond
)

// Dir is a locked data directory.
type Dir struct {
	path string
	lock *os.File
	made bool     // by Open
	had  []string // what was in it before
}

// Open makes or opens the data directory and locks it for this process. A directory that
// another agent uses, or that a newer release wrote, is refused.
func Open(path string) (*Dir, error) {
	_, err := os.Lstat(path)
	made := errors.Is(err, os.ErrNotExist)
	for _, dir := range []string{path, filepath.Join(path, "run")} {
		if err := os.MkdirAll(dir, 0o700); err != nil {
			return nil, fmt.Errorf("data directory: %w", err)
		}
	}
	lock, err := os.OpenFile(filepath.Join(path, "lock"), os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return nil, fmt.Errorf("data directory: %w", err)
	}
	err = unix.Flock(int(lock.Fd()), unix.LOCK_EX|unix.LOCK_NB)
	for end := time.Now().Add(dyingTime); err != nil && holderIsDying(lock.Name()) && time.Now().Before(end); {
		<-time.After(dyingPoll) // the kernel does not tell when a lock is free
		err = unix.Flock(int(lock.Fd()), unix.LOCK_EX|unix.LOCK_NB)
	}
	if err != nil {
		holder, _ := os.ReadFile(lock.Name()) //nolint:gosec // our own lock file
		return nil, errors.Join(fmt.Errorf("data directory %s is in use by another agent (pid %s): stop it, or give this one its own --data-dir",
			path, strings.TrimSpace(string(holder))), lock.Close())
	}
	d := &Dir{path: path, lock: lock, made: made}
	if d.had, err = d.before(); err != nil {
		return nil, errors.Join(err, lock.Close())
	}
	if err := d.stamp(); err != nil {
		return nil, errors.Join(err, d.Undo())
	}
	return d, nil
}

// before lists what was in the directory before it was opened. It looks when it has the lock: until
// then another may have made a node there. A lock that nobody has signed is new, and so is run beside it.
func (d *Dir) before() ([]string, error) {
	found, err := names(d.path)
	if err != nil {
		return nil, err
	}
	if signed, err := d.lock.Stat(); err == nil && signed.Size() == 0 {
		found = slices.DeleteFunc(found, func(name string) bool { return name == "lock" || name == "run" })
	}
	return found, nil
}

// Undo removes what was made in the directory since it was opened, and it too if Open made it, and
// releases the lock.
func (d *Dir) Undo() error {
	err := removeOurs(d.path, d.had)
	if err == nil && d.made {
		if err = os.Remove(d.path); errors.Is(err, unix.ENOTEMPTY) || errors.Is(err, unix.EBUSY) {
			err = nil // what is left is somebody else's
		}
	}
	return errors.Join(err, d.lock.Close())
}

// AwaitFree waits until no agent has the data directory.
func AwaitFree(ctx context.Context, path string) error {
	tick := time.NewTicker(dyingPoll)
	defer tick.Stop()
	for {
		lock, err := os.Open(filepath.Join(path, "lock"))
		if errors.Is(err, os.ErrNotExist) {
			return nil
		}
		if err != nil {
			return fmt.Errorf("data directory: %w", err)
		}
		err = unix.Flock(int(lock.Fd()), unix.LOCK_EX|unix.LOCK_NB)
		if err := errors.Join(err, lock.Close()); err == nil {
			return nil
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return fmt.Errorf("the agent of %s did not end: %w", path, ctx.Err())
		}
	}
}

// holderIsDying tells that the process named in a lock file was killed: it has no memory any more,
// but until its exit is complete the kernel keeps its files open, and with them the lock.
func holderIsDying(file string) bool {
	pid, err := os.ReadFile(file) //nolint:gosec // our own lock file
	if err != nil {
		return false
	}
	cmdline, err := os.ReadFile(filepath.Join("/proc", strings.TrimSpace(string(pid)), "cmdline")) //nolint:gosec // of a pid
	return err != nil || len(cmdline) == 0
}

// stamp checks VERSION, writes it into a new directory, and leaves our pid in the lock file.
func (d *Dir) stamp() error {
	file := filepath.Join(d.path, "VERSION")
	data, err := os.ReadFile(file)
	switch {
	case errors.Is(err, os.ErrNotExist):
		if _, err := os.Stat(filepath.Join(d.path, "state")); err == nil {
			return fmt.Errorf("%s is missing beside existing state: restore it (its content is the number %d) or restore the directory from a backup", file, version)
		}
		if err := os.WriteFile(file, fmt.Appendf(nil, "%d\n", version), 0o600); err != nil {
			return fmt.Errorf("data directory: %w", err)
		}
	case err != nil:
		return fmt.Errorf("data directory: %w", err)
	default:
		v, err := strconv.Atoi(strings.TrimSpace(string(data)))
		if err != nil {
			return fmt.Errorf("%s is damaged (%q is not a number): restore it (this release writes %d) or restore the directory from a backup", file, data, version)
		}
		if v > version {
			return fmt.Errorf("data directory %s was written by a newer release (layout %d, this one reads up to %d): run that release or a newer one", d.path, v, version)
		}
	}
	if err := d.lock.Truncate(0); err != nil {
		return fmt.Errorf("data directory: %w", err)
	}
	_, err = d.lock.WriteAt(fmt.Appendf(nil, "%d\n", os.Getpid()), 0)
	if err != nil {
		return fmt.Errorf("data directory: %w", err)
	}
	return nil
}

// Path is the directory's.
func (d *Dir) Path() string { return d.path }

// File is the path of something in it.
func (d *Dir) File(parts ...string) string {
	return filepath.Join(append([]string{d.path}, parts...)...)
}

// Close releases the lock. The file stays: removing it would let two agents lock two files.
func (d *Dir) Close() error { return d.lock.Close() }
