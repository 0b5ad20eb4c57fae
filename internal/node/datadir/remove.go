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

// belongs tells whether a name is that of an entry, or of what a crash left of writing it.
func belongs(name, entry string) bool { return name == entry || strings.HasPrefix(name, "."+entry+".") }

// names lists what is in a directory, if there is one.
func names(dir string) ([]string, error) {
	found, err := os.ReadDir(dir)
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		return nil, fmt.Errorf("data directory: %w", err)
	}
	var list []string
	for _, e := range found {
		list = append(list, e.Name())
	}
	return list, nil
}

// foreign lists what is in a data directory without being ours.
func foreign(dir string) ([]string, error) {
	found, err := names(dir)
	return slices.DeleteFunc(found, func(name string) bool {
		return slices.ContainsFunc(entries(), func(entry string) bool { return belongs(name, entry) })
	}), err
}

// removeOurs removes what is ours and not to be kept, in the order of entries.
func removeOurs(dir string, keep []string) error {
	found, err := names(dir)
	if err != nil {
		return err
	}
	for _, entry := range entries() {
		for _, name := range found {
			if !belongs(name, entry) || slices.Contains(keep, name) {
				continue
			}
			if err := os.RemoveAll(filepath.Join(dir, name)); err != nil {
				return fmt.Errorf("remove data: %w", err)
			}
		}
	}
	return nil
}

// RefuseForeign keeps a mistyped --data-dir from costing somebody's files.
func RefuseForeign(dir string) error {
	others, err := foreign(dir)
	if err != nil || len(others) == 0 {
		return err
	}
	if _, err := os.Stat(filepath.Join(dir, "VERSION")); err != nil {
		return fmt.Errorf("%s is not the data directory of a node (it has no file VERSION, but %s): nothing was removed", dir, others[0])
	}
	return nil
}

// Remove removes what is ours, and the directory when that was all.
func Remove(dir string, log *slog.Logger) error {
	if err := removeOurs(dir, nil); err != nil {
		return err
	}
	left, err := foreign(dir)
	if err != nil {
		return err
	}
	if len(left) > 0 {
		log.Warn("data directory is kept for what else is in it", "dir", dir, "found", strings.Join(left, " "))
		return nil
	}
	err = os.Remove(dir)
	if err == nil || errors.Is(err, os.ErrNotExist) || errors.Is(err, syscall.EBUSY) { // busy: a disk of its own is mounted there
		return nil
	}
	return fmt.Errorf("remove data: %w", err)
}
