package podman

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"syscall"
)

// RotateLog renames the log of a running container and has its conmon begin a new one at the old path; no line is lost.
// staticDir is Container.StaticDir. The container must have been made with LogConfig.Size 0: conmon's own limit throws
// away what was written before.
func RotateLog(staticDir, path, to string) error {
	ctl, err := os.OpenFile(filepath.Join(staticDir, "ctl"), os.O_WRONLY|syscall.O_NONBLOCK, 0)
	switch {
	case errors.Is(err, syscall.ENXIO): // nobody reads: the container has just ended
		return fmt.Errorf("rotate log %s: %w", path, ErrConflict)
	case errors.Is(err, os.ErrNotExist):
		return fmt.Errorf("rotate log %s: %w", path, ErrNotFound)
	case err != nil:
		return fmt.Errorf("rotate log %s: %w", path, err)
	}
	defer ctl.Close()
	if err := os.Rename(path, to); err != nil {
		return fmt.Errorf("rotate log: %w", err)
	}
	if _, err := ctl.WriteString("2 0 0\n"); err != nil { // conmon's "reopen logs"
		return fmt.Errorf("rotate log %s: %w", path, err)
	}
	return nil
}
