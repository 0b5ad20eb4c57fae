package datadir

import (
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
)

// entries are what a node and `make up` put into a data directory. What marks it as one comes last,
// so that an interrupted removal is seen for what it is.
func entries() []string {
	return []string{"state", "pki", "member.json", "joining.json", unfinished, "backups", "apiserver", "openapi", "pods", "logs", "run", "seccomp", "admin.kubeconfig", "agent.log", "VERSION", "lock"}
}

// foreign lists what is in a data directory without being ours.
func foreign(dir string) ([]string, error) {
	found, err := os.ReadDir(dir)
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		return nil, fmt.Errorf("data directory: %w", err)
	}
	var names []string
	for _, e := range found {
		if !slices.Contains(entries(), e.Name()) {
			names = append(names, e.Name())
		}
	}
	return names, nil
}

// RefuseForeign keeps a mistyped --data-dir from costing somebody's files.
func RefuseForeign(dir string) error {
	names, err := foreign(dir)
	if err != nil || len(names) == 0 {
		return err
	}
	if _, err := os.Stat(filepath.Join(dir, "VERSION")); err != nil {
		return fmt.Errorf("%s is not the data directory of a node (it has no file VERSION, but %s): nothing was removed", dir, names[0])
	}
	return nil
}

// Remove removes what is ours, and the directory when that was all.
func Remove(dir string, log *slog.Logger) error {
	for _, name := range entries() {
		if err := os.RemoveAll(filepath.Join(dir, name)); err != nil {
			return fmt.Errorf("remove data: %w", err)
		}
	}
	names, err := foreign(dir)
	if err != nil {
		return err
	}
	if len(names) > 0 {
		log.Warn("data directory is kept for what else is in it", "dir", dir, "found", strings.Join(names, " "))
		return nil
	}
	err = os.Remove(dir)
	if err == nil || errors.Is(err, os.ErrNotExist) || errors.Is(err, syscall.EBUSY) { // busy: a disk of its own is mounted there
		return nil
	}
	return fmt.Errorf("remove data: %w", err)
}
