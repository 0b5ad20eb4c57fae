package podman

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"time"

	"golang.org/x/sys/unix"
)

// killProcess kills through a descriptor, so that it is the process that was looked at.
func killProcess(pid int, sig unix.Signal) error {
	fd, err := unix.PidfdOpen(pid, 0)
	if err != nil {
		return err
	}
	defer unix.Close(fd) //nolint:errcheck // only a descriptor
	return unix.PidfdSendSignal(fd, sig, nil, 0)
}

// reapExec has an exec session that is over removed now. Podman's API leaves two conmon processes (3 MB) and
// the session's record behind for five minutes, in case somebody asks for the exit code: a probe every few
// seconds would pile up dozens, and a pod whose cgroup holds one takes 3 s to remove. The second of them only sleeps;
// SIGTERM wakes it, and it runs Podman's own cleanup. Measured on 4.3.1 and 5.4.2. It comes a moment after the exit
// code, on a busy machine a long one; when the session has no process any more, there is nothing to do.
func reapExec(ctx context.Context, session string) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), exitWait) // also for a caller who has gone
	defer cancel()
	for wait := 5 * time.Millisecond; ctx.Err() == nil; wait = min(2*wait, 100*time.Millisecond) {
		sleeper, monitors := findSleeper(session)
		if sleeper != 0 {
			_ = killProcess(sleeper, unix.SIGTERM)
			return
		}
		if monitors == 0 {
			return
		}
		pause(ctx, wait)
	}
}

// findSleeper finds the conmon of a session whose parent is another conmon of it, and counts them all.
func findSleeper(session string) (sleeper, monitors int) {
	dirs, err := os.ReadDir("/proc")
	if err != nil {
		return 0, 0
	}
	want := []byte("\x00-u\x00" + session + "\x00")
	conmons := map[int]bool{}
	for _, d := range dirs {
		pid, err := strconv.Atoi(d.Name())
		if err != nil {
			continue
		}
		cmd, err := os.ReadFile(filepath.Join("/proc", d.Name(), "cmdline"))
		if err == nil && bytes.Contains(cmd, want) {
			conmons[pid] = true
		}
	}
	for pid := range conmons {
		if conmons[parentOf(pid)] {
			sleeper = pid
		}
	}
	return sleeper, len(conmons)
}

// parentOf reads the fourth field of /proc/PID/stat; the second one is in parentheses and may hold anything.
func parentOf(pid int) (parent int) {
	b, _ := os.ReadFile(filepath.Join("/proc", strconv.Itoa(pid), "stat")) // empty: it has ended
	_, _ = fmt.Sscan(string(b[bytes.LastIndexByte(b, ')')+1:]), new(string), &parent)
	return parent
}
