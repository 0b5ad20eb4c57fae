package podman

import (
	"bytes"
	"context"
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
// SIGTERM wakes it, and it runs Podman's own cleanup. Measured on 4.3.1 and 5.4.2.
func reapExec(ctx context.Context, session string) {
	const tries, wait = 20, 5 * time.Millisecond // the sleeper comes a moment after the exit code
	for range tries {
		if pid := findSleeper(session); pid != 0 {
			_ = killProcess(pid, unix.SIGTERM)
			return
		}
		pause(ctx, wait)
	}
}

// findSleeper finds the conmon of a session whose parent is another conmon of it.
func findSleeper(session string) int {
	dirs, err := os.ReadDir("/proc")
	if err != nil {
		return 0
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
			return pid
		}
	}
	return 0
}

// parentOf reads the fourth field of /proc/PID/stat; the second one is in parentheses and may hold anything.
func parentOf(pid int) int {
	b, err := os.ReadFile(filepath.Join("/proc", strconv.Itoa(pid), "stat"))
	if err != nil {
		return 0
	}
	fields := bytes.Fields(b[bytes.LastIndexByte(b, ')')+1:])
	if len(fields) < 2 {
		return 0
	}
	ppid, err := strconv.Atoi(string(fields[1]))
	if err != nil {
		return 0
	}
	return ppid
}
