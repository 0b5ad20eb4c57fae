package podman

import "golang.org/x/sys/unix"

// killProcess kills through a descriptor, so that a process ID that is used anew meanwhile is at least not signaled
// late.
func killProcess(pid int) error {
	fd, err := unix.PidfdOpen(pid, 0)
	if err != nil {
		return err
	}
	defer unix.Close(fd) //nolint:errcheck // only a descriptor
	return unix.PidfdSendSignal(fd, unix.SIGKILL, nil, 0)
}
