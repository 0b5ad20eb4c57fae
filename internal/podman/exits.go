package podman

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"time"

	"golang.org/x/sys/unix"
)

// reopenEvery is how often a missing exits directory is looked for: Podman makes it when it first runs after a boot.
const reopenEvery = 500 * time.Millisecond

// WatchExits calls fn for every exit file that conmon writes to dir (Info.ExitsDir), within milliseconds of a
// container's end, until ctx ends. Files that are there already are reported first. It is a hint: a file may come
// twice, and none comes for a container that a power failure ended. But nothing ends in silence: Podman removes the
// file some 30 ms after the end, and where that was faster fn is told of an Exit that is Unread; when the watch begins,
// or begins anew, when the kernel dropped events, and now and then while dir is absent, of one without an ID.
func WatchExits(ctx context.Context, dir string, fn func(Exit)) error {
	for tries := 0; ctx.Err() == nil; tries++ {
		err := watchDir(ctx, dir, fn)
		switch {
		case err == nil:
			tries = -1 // say at once when it does not come back
		case !errors.Is(err, os.ErrNotExist):
			return fmt.Errorf("watch %s: %w", dir, err)
		case time.Duration(tries)*reopenEvery%(5*time.Second) == 0:
			fn(Exit{})
		}
		pause(ctx, reopenEvery)
	}
	return ctx.Err()
}

// watchDir watches one incarnation of the directory; nil when it is gone.
func watchDir(ctx context.Context, dir string, fn func(Exit)) error {
	fd, err := unix.InotifyInit1(unix.IN_CLOEXEC | unix.IN_NONBLOCK)
	if err != nil {
		return fmt.Errorf("inotify: %w (raise fs.inotify.max_user_instances)", err)
	}
	// os.File puts the descriptor into the runtime's poller, so that closing it ends a blocked Read.
	f := os.NewFile(uintptr(fd), "inotify")
	defer f.Close()
	// conmon writes a temporary file and renames it, older ones write in place.
	const mask = unix.IN_MOVED_TO | unix.IN_CLOSE_WRITE | unix.IN_DELETE_SELF | unix.IN_MOVE_SELF | unix.IN_ONLYDIR
	if _, err := unix.InotifyAddWatch(fd, dir, mask); err != nil {
		return err
	}
	stop := context.AfterFunc(ctx, func() { _ = f.Close() })
	defer stop()
	if err := readExisting(dir, fn); err != nil {
		return err
	}
	buf := make([]byte, 64*(unix.SizeofInotifyEvent+unix.NAME_MAX+1))
	for {
		n, err := f.Read(buf)
		if err != nil {
			if ctx.Err() != nil {
				return nil
			}
			return err
		}
		if gone := handleEvents(buf[:n], dir, fn); gone {
			return nil
		}
	}
}

// readExisting reports the files that are there, and that those of others may be gone already.
func readExisting(dir string, fn func(Exit)) error {
	entries, err := os.ReadDir(dir)
	for _, e := range entries {
		reportExit(dir, e.Name(), fn)
	}
	fn(Exit{})
	return err
}

// handleEvents reads a buffer of inotify events and tells whether the directory is gone.
func handleEvents(buf []byte, dir string, fn func(Exit)) (gone bool) {
	for len(buf) >= unix.SizeofInotifyEvent {
		mask := binary.NativeEndian.Uint32(buf[4:])
		size := int(binary.NativeEndian.Uint32(buf[12:]))
		end := min(unix.SizeofInotifyEvent+size, len(buf))
		name := string(bytes.TrimRight(buf[unix.SizeofInotifyEvent:end], "\x00"))
		buf = buf[end:]
		switch {
		case mask&(unix.IN_DELETE_SELF|unix.IN_MOVE_SELF|unix.IN_IGNORED) != 0:
			gone = true
		case mask&unix.IN_Q_OVERFLOW != 0:
			_ = readExisting(dir, fn)
		case name != "":
			reportExit(dir, name, fn)
		}
	}
	return gone
}

// reportExit reads one exit file. Exec sessions and conmon's temporary files have other names.
func reportExit(dir, name string, fn func(Exit)) {
	if len(name) != 64 {
		return
	}
	path := filepath.Join(dir, name)
	b, err := os.ReadFile(path)
	code, syntax := strconv.ParseInt(string(bytes.TrimSpace(b)), 10, 32)
	// Unread: either Podman has removed it, or it is not written yet and its closing comes next.
	x := Exit{ID: name, Code: int32(code), At: time.Now(), Unread: err != nil || syntax != nil}
	if fi, err := os.Stat(path); err == nil {
		x.At = fi.ModTime()
	}
	fn(x)
}
