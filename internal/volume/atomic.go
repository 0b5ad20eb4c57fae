package volume

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"
)

const (
	dataName    = "..data"     // the link to the directory that holds the files of now
	newDataName = "..data_tmp" // becomes ..data by rename
	volumeMode  = os.ModePerm  // of a volume's top directory; the pod's directory keeps others out

	maxNameLength = 255
	maxPathLength = 4096
)

// Bits that fsGroup adds to a read-only volume and to a writable one, and to directories of both.
const (
	groupRead  os.FileMode = 0o440
	groupWrite os.FileMode = 0o660
	groupDir               = os.ModeSetgid | 0o110
)

type digest [sha256.Size]byte

// sumOf tells contents of a volume apart.
func sumOf(files map[string]file, group *int64) digest {
	h := sha256.New()
	number := func(n *int64) int64 {
		if n == nil {
			return -1
		}
		return *n
	}
	fmt.Fprintln(h, number(group))
	for _, path := range slices.Sorted(maps.Keys(files)) {
		f := files[path]
		fmt.Fprintf(h, "%q %d %d %d\n", path, f.mode, number(f.user), len(f.data))
		_, _ = h.Write(f.data) // a hash takes everything
	}
	return digest(h.Sum(nil))
}

// validate is upstream's validatePayload.
func validate(files map[string]file) error {
	for path := range files {
		items := strings.Split(path, "/")
		switch {
		case path == "":
			return fmt.Errorf("invalid path: must not be empty: %q", path)
		case filepath.IsAbs(path):
			return fmt.Errorf("invalid path: must be relative path: %s", path)
		case len(path) > maxPathLength:
			return fmt.Errorf("invalid path: must be less than or equal to %d characters", maxPathLength)
		case slices.Contains(items, ".."):
			return fmt.Errorf("invalid path: must not contain '..': %s", path)
		case strings.HasPrefix(items[0], ".."):
			return fmt.Errorf("invalid path: must not start with '..': %s", path)
		case slices.ContainsFunc(items, func(s string) bool { return len(s) > maxNameLength }):
			return fmt.Errorf("invalid path: filenames must be less than or equal to %d characters", maxNameLength)
		}
	}
	return nil
}

// writer replaces the files of a volume all at once, the way upstream's AtomicWriter does:
//
//	<dir>/..2026_11_23_20_24_45.1234/   the files
//	<dir>/..data -> that directory      swapped by rename
//	<dir>/<name> -> ..data/<name>       what containers see
//
// Whoever watches ..data learns of the swap.
type writer struct {
	dir     string
	owner   Owner
	fsGroup *int64
}

func (w *writer) write(ctx context.Context, files map[string]file) error {
	clean := make(map[string]file, len(files))
	for path, f := range files {
		clean[filepath.Clean(path)] = f
	}
	current, err := os.Readlink(filepath.Join(w.dir, dataName))
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	if current == "" || !w.holds(current, clean) {
		if current, err = w.swap(ctx, clean, current == ""); err != nil {
			return err
		}
	}
	if err := w.link(clean); err != nil {
		return err
	}
	return w.prune(clean, current)
}

// holds says whether a data directory has exactly these contents. What cannot be read has not.
func (w *writer) holds(data string, files map[string]file) bool {
	root := filepath.Join(w.dir, data)
	seen := 0
	err := filepath.WalkDir(root, func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		f, ok := files[strings.TrimPrefix(path, root+"/")]
		if !ok {
			return fs.ErrNotExist
		}
		b, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		if !bytes.Equal(b, f.data) {
			return fs.ErrInvalid
		}
		seen++
		return nil
	})
	return err == nil && seen == len(files)
}

// swap writes a new data directory and makes it the current one.
func (w *writer) swap(ctx context.Context, files map[string]file, first bool) (string, error) {
	tmp := filepath.Join(w.dir, newDataName)
	if err := os.Remove(tmp); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return "", err
	}
	dir, err := os.MkdirTemp(w.dir, time.Now().UTC().Format("..2006_01_02_15_04_05."))
	if err != nil {
		return "", err
	}
	changes, err := w.fill(dir, files)
	if err == nil && first && w.fsGroup != nil {
		mode := volumeMode | groupRead | groupDir
		changes = append(changes, Change{Path: w.dir, UID: -1, GID: int(*w.fsGroup), Mode: &mode})
	}
	if err == nil && len(changes) > 0 {
		err = w.owner.Apply(ctx, changes)
	}
	if err == nil {
		err = os.Symlink(filepath.Base(dir), tmp)
	}
	if err == nil {
		err = os.Rename(tmp, filepath.Join(w.dir, dataName))
	}
	if err != nil {
		return "", errors.Join(err, os.RemoveAll(dir))
	}
	return filepath.Base(dir), nil
}

// fill writes the files below dir and returns the changes of ownership they need.
func (w *writer) fill(dir string, files map[string]file) ([]Change, error) {
	var changes []Change
	group := func(path string, mode os.FileMode) {
		if w.fsGroup != nil {
			changes = append(changes, Change{Path: path, UID: -1, GID: int(*w.fsGroup), Mode: &mode})
		}
	}
	if err := os.Chmod(dir, 0o755); err != nil { // MkdirTemp made it 0700
		return nil, err
	}
	dirs := map[string]bool{dir: true}
	for _, path := range slices.Sorted(maps.Keys(files)) {
		f := files[path]
		full := filepath.Join(dir, path)
		for d := filepath.Dir(full); !dirs[d]; d = filepath.Dir(d) {
			dirs[d] = true
		}
		if err := makeDir(filepath.Dir(full), 0o755); err != nil {
			return nil, err
		}
		mode := os.FileMode(f.mode) & os.ModePerm
		if err := os.WriteFile(full, f.data, mode); err != nil {
			return nil, err
		}
		if err := os.Chmod(full, mode); err != nil { // whatever the umask
			return nil, err
		}
		if f.user != nil {
			changes = append(changes, Change{Path: full, UID: int(*f.user), GID: -1})
		}
		group(full, mode|groupRead)
	}
	for _, d := range slices.Sorted(maps.Keys(dirs)) {
		group(d, 0o755|groupRead|groupDir)
	}
	return changes, nil
}

// link makes the names that containers see.
func (w *writer) link(files map[string]file) error {
	for path := range files {
		name, _, _ := strings.Cut(path, "/")
		err := os.Symlink(filepath.Join(dataName, name), filepath.Join(w.dir, name))
		if err != nil && !errors.Is(err, fs.ErrExist) {
			return err
		}
	}
	return nil
}

// prune removes names that no longer lead anywhere, and data directories that are not current, also those
// a crash has left.
func (w *writer) prune(files map[string]file, current string) error {
	names := map[string]bool{dataName: true, current: true}
	for path := range files {
		name, _, _ := strings.Cut(path, "/")
		names[name] = true
	}
	entries, err := os.ReadDir(w.dir)
	if err != nil {
		return err
	}
	for _, e := range entries {
		old := strings.HasPrefix(e.Name(), "..") || e.Type()&fs.ModeSymlink != 0
		if names[e.Name()] || !old {
			continue // in use, or a mount point for another volume
		}
		if err := os.RemoveAll(filepath.Join(w.dir, e.Name())); err != nil {
			return err
		}
	}
	return nil
}

// makeDir makes a directory and its parents with exactly this mode; one that is there is left alone.
func makeDir(dir string, mode os.FileMode) error {
	if _, err := os.Lstat(dir); err == nil {
		return nil
	}
	if err := os.MkdirAll(filepath.Dir(dir), 0o755); err != nil {
		return err
	}
	if err := os.Mkdir(dir, mode); err != nil && !errors.Is(err, fs.ErrExist) {
		return err
	}
	return os.Chmod(dir, mode)
}
