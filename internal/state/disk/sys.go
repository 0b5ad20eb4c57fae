package disk

import (
	"errors"
	"os"
	"syscall"

	"golang.org/x/sys/unix"
)

// datasync makes a file's content durable.
func (p Probe) datasync(f *os.File) error {
	if err := p.ask(Sync, f.Name()); err != nil {
		return err
	}
	for {
		err := unix.Fdatasync(int(f.Fd()))
		if !errors.Is(err, syscall.EINTR) {
			return p.synced(Synced, f.Name(), os.NewSyscallError("fdatasync "+f.Name(), err))
		}
	}
}

// allocate reserves room so that writing below size cannot run out of space. File systems that
// cannot reserve are used without.
func allocate(f *os.File, size int64) error {
	for {
		err := unix.Fallocate(int(f.Fd()), 0, 0, size)
		switch {
		case errors.Is(err, syscall.EINTR):
		case errors.Is(err, syscall.EOPNOTSUPP), errors.Is(err, syscall.ENOSYS):
			return nil
		default:
			return os.NewSyscallError("fallocate "+f.Name(), err)
		}
	}
}

// lockFile takes the lock of a directory; it ends with the file or the process.
func lockFile(name string) (*os.File, error) {
	f, err := os.OpenFile(name, os.O_CREATE|os.O_RDWR, fileMode)
	if err != nil {
		return nil, err
	}
	if err := unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB); err != nil {
		if errors.Is(err, unix.EWOULDBLOCK) {
			err = ErrLocked
		}
		return nil, errors.Join(err, f.Close())
	}
	return f, nil
}
