package disk

import (
	"errors"
	"fmt"
	"path/filepath"
)

// ErrLocked says that another process, or another Store in this one, uses the directory.
var ErrLocked = errors.New("in use by another process")

// ErrFailed says that an earlier write may or may not have reached the disk. The log refuses to go
// on until it is opened, and thereby read, again.
var ErrFailed = errors.New("log failed and must be reopened")

// unknown is the error of a write that may have happened. What the system said is told but not passed
// on: ENOSPC, for one, means that nothing did.
func unknown(err error) error { return fmt.Errorf("%w: %s", ErrFailed, err.Error()) }

// DamageError says that a file does not hold what was written to it.
type DamageError struct {
	File string // path
	What string
	Dir  string // the directory to move aside
}

func (e *DamageError) Error() string {
	return fmt.Sprintf("%s is damaged: %s. Nothing was changed. Way back: put an intact copy of this file "+
		"back; or, if other nodes hold the state, move %s aside and join again; "+
		"or restore a backup", e.File, e.What, e.Dir)
}

// damage makes a DamageError of a file in the tree of a data directory.
func damage(root, file, format string, args ...any) error {
	return &DamageError{File: file, Dir: filepath.Clean(root), What: fmt.Sprintf(format, args...)}
}
