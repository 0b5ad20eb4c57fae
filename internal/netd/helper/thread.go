package helper

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"

	"golang.org/x/sys/unix"
)

// threadNS names the network namespace of the calling thread. /proc/self would name the one of the
// process' first thread.
const threadNS = "/proc/thread-self/ns/net"

// nsGetType is the ioctl that tells what kind of namespace a descriptor refers to.
const nsGetType = 0xb703

// thread runs functions one after another on one OS thread that may live in another network
// namespace than the rest of the process. Processes started by such a function live there too.
type thread struct {
	jobs chan func()
	done chan struct{}
}

// newThread starts a thread; enter runs first and may move it to another namespace.
func newThread(enter func() error) (*thread, error) {
	t := &thread{jobs: make(chan func()), done: make(chan struct{})}
	entered := make(chan error, 1)
	go func() {
		defer close(t.done)
		// Never unlocked: the thread ends with this goroutine and is not used for another.
		runtime.LockOSThread()
		err := enter()
		entered <- err
		if err != nil {
			return
		}
		for job := range t.jobs {
			job()
		}
	}()
	return t, <-entered
}

func (t *thread) do(fn func() error) error {
	result := make(chan error, 1)
	t.jobs <- func() { result <- fn() }
	return <-result
}

// close waits for the thread's end. No do may be running or follow.
func (t *thread) close() {
	close(t.jobs)
	<-t.done
}

// onThread runs fn on a thread of its own, which ends afterwards wherever fn left it.
func onThread(fn func() error) error {
	t, err := newThread(fn)
	if err == nil {
		t.close()
	}
	return err
}

// enter moves the calling thread to the namespace pinned at path.
func enter(path string) error {
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	defer func() { _ = f.Close() }()
	if err := unix.Setns(int(f.Fd()), unix.CLONE_NEWNET); err != nil {
		return fmt.Errorf("enter network namespace %s: %w", path, err)
	}
	return nil
}

// newNS moves the calling thread to a new network namespace and pins that at path, which must not
// be a pin already.
func newNS(path string) error {
	if err := unix.Unshare(unix.CLONE_NEWNET); err != nil {
		return fmt.Errorf("make a network namespace: %w", err)
	}
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		return err
	}
	f, err := os.OpenFile(path, os.O_CREATE|os.O_RDONLY, 0o600)
	if err != nil {
		return err
	}
	_ = f.Close()
	if err := unix.Mount(threadNS, path, "", unix.MS_BIND, ""); err != nil {
		return fmt.Errorf("pin a network namespace at %s: %w", path, err)
	}
	return nil
}

// isNS tells whether a network namespace is pinned at path, and not merely a file left by a boot
// or a mount namespace that is gone.
func isNS(path string) bool {
	f, err := os.Open(path)
	if err != nil {
		return false
	}
	defer func() { _ = f.Close() }()
	var s unix.Statfs_t
	if unix.Fstatfs(int(f.Fd()), &s) != nil || s.Type != unix.NSFS_MAGIC {
		return false
	}
	kind, err := unix.IoctlRetInt(int(f.Fd()), nsGetType)
	return err == nil && kind == unix.CLONE_NEWNET
}

// unpin removes a pin and its file; nothing there is fine. The namespace itself lives on while a
// process is inside.
func unpin(path string) error {
	for { // mounts may be stacked
		err := unix.Unmount(path, unix.MNT_DETACH|unix.UMOUNT_NOFOLLOW)
		if errors.Is(err, unix.EINVAL) || errors.Is(err, unix.ENOENT) {
			break
		}
		if err != nil {
			return fmt.Errorf("unpin network namespace %s: %w", path, err)
		}
	}
	if err := os.Remove(path); err != nil && !errors.Is(err, os.ErrNotExist) {
		return err
	}
	return nil
}

// sysctl sets a value in the calling thread's network namespace, below /proc/sys/net.
func sysctl(name, value string) error {
	return os.WriteFile(filepath.Join("/proc/sys/net", name), []byte(value), 0)
}
