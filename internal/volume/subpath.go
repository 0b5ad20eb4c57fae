package volume

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"
)

var errMakeSubPath = errors.New("make subPath")

// subPathMount is a part of a volume to be mounted.
type subPathMount struct {
	volume string // host path of the volume
	sub    string // relative
	pod    string // the pod's directory
	at     string // place for the bind mount, relative to pod
	group  int    // the pod's fsGroup, -1: none
}

// prepareSubPath returns a host path that leads to the subPath and nowhere else, whatever symbolic links
// containers have put into the volume. The lookup is the kernel's (openat2, RESOLVE_BENEATH): a link out of
// the volume is an error.
//
// A rootful node then mounts what it found, by its descriptor, so that nothing can be swapped before the
// container starts. A rootless one cannot mount where Podman sees it; it returns the path that was found, free
// of links. A container of the same pod that swaps a directory for a link in the moment between could
// still reach what this unprivileged user can read.
func (v *Volumes) prepareSubPath(ctx context.Context, s subPathMount) (string, error) {
	root, err := unix.Open(s.volume, unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return "", &fs.PathError{Op: "open", Path: s.volume, Err: err}
	}
	defer func() { _ = unix.Close(root) }()
	fd, err := openBeneath(root, s.sub)
	if errors.Is(err, unix.ENOENT) {
		if err = v.makeBeneath(ctx, root, s); err != nil {
			return "", fmt.Errorf("%w: %w", errMakeSubPath, err)
		}
		fd, err = openBeneath(root, s.sub)
	}
	if err != nil {
		return "", &fs.PathError{Op: "open beneath " + s.volume, Path: s.sub, Err: err}
	}
	defer func() { _ = unix.Close(fd) }()
	if v.cfg.Rootless {
		return os.Readlink(fdPath(fd))
	}
	return bindSubPath(fd, filepath.Join(s.pod, s.at))
}

func fdPath(fd int) string { return fmt.Sprintf("/proc/self/fd/%d", fd) }

// openBeneath opens a path that stays below root.
func openBeneath(root int, path string) (int, error) {
	how := &unix.OpenHow{
		Flags:   unix.O_PATH | unix.O_CLOEXEC,
		Resolve: unix.RESOLVE_BENEATH | unix.RESOLVE_NO_MAGICLINKS,
	}
	for range 100 {
		fd, err := unix.Openat2(root, path, how)
		if !errors.Is(err, unix.EAGAIN) && !errors.Is(err, unix.EINTR) {
			return fd, err
		}
	}
	return -1, unix.EAGAIN // somebody renames all the time
}

// makeBeneath makes the directories of a subPath that are missing, with the mode of the volume.
func (v *Volumes) makeBeneath(ctx context.Context, root int, s subPathMount) error {
	info, err := os.Stat(s.volume)
	if err != nil {
		return err
	}
	mode := info.Mode() & (os.ModePerm | os.ModeSetgid | os.ModeSticky)
	parent := root
	path := ""
	for name := range strings.SplitSeq(filepath.Clean(s.sub), "/") {
		path = filepath.Join(path, name)
		fd, err := openBeneath(root, path)
		if errors.Is(err, unix.ENOENT) {
			fd, err = v.mkdirAt(ctx, parent, name, Change{Mode: &mode, UID: -1, GID: s.group})
		}
		if parent != root {
			_ = unix.Close(parent)
		}
		if err != nil {
			return &fs.PathError{Op: "mkdir", Path: path, Err: err}
		}
		parent = fd
	}
	if parent != root {
		_ = unix.Close(parent)
	}
	return nil
}

// mkdirAt makes one directory and returns it opened. It inherits its group; want is what else it gets.
func (v *Volumes) mkdirAt(ctx context.Context, parent int, name string, want Change) (int, error) {
	if err := unix.Mkdirat(parent, name, uint32(want.Mode.Perm())); err != nil {
		return -1, err
	}
	fd, err := unix.Openat(parent, name, unix.O_PATH|unix.O_DIRECTORY|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
	if err != nil {
		return -1, err
	}
	err = os.Chmod(fdPath(fd), *want.Mode) // the umask took bits away
	info, statErr := os.Stat(fdPath(fd))
	if err = errors.Join(err, statErr); err == nil && want.GID >= 0 && info.Mode()&^os.ModeDir != *want.Mode {
		// For a group that is not the caller's, chmod takes the set-group-id bit.
		if want.Path, err = os.Readlink(fdPath(fd)); err == nil {
			err = v.cfg.Owner.Apply(ctx, []Change{want})
		}
	}
	if err != nil {
		_ = unix.Close(fd)
		return -1, err
	}
	return fd, nil
}

// bindSubPath mounts what fd refers to on target.
func bindSubPath(fd int, target string) (string, error) {
	var want, have unix.Stat_t
	if err := unix.Fstat(fd, &want); err != nil {
		return "", err
	}
	mounted, err := mountsBelow(target)
	if err != nil {
		return "", err
	}
	if len(mounted) > 0 {
		if unix.Stat(target, &have) == nil && have.Dev == want.Dev && have.Ino == want.Ino {
			return target, nil
		}
		if err := unmountBelow(target); err != nil { // the subPath is another one now
			return "", err
		}
	}
	if err := os.MkdirAll(filepath.Dir(target), 0o750); err != nil {
		return "", err
	}
	if err := os.RemoveAll(target); err != nil {
		return "", err
	}
	if want.Mode&unix.S_IFMT == unix.S_IFDIR {
		err = os.Mkdir(target, 0o750)
	} else {
		err = os.WriteFile(target, nil, 0o640)
	}
	if err != nil {
		return "", err
	}
	if err := unix.Mount(fdPath(fd), target, "", unix.MS_BIND, ""); err != nil {
		return "", errors.Join(&fs.PathError{Op: "bind mount", Path: target, Err: err}, os.Remove(target))
	}
	return target, nil
}
