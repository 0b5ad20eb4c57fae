package helper

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"strconv"

	"golang.org/x/sys/unix"

	"github.com/podman-swarm/podman-swarm/internal/netd/wire"
)

// Process names a process beyond its end: pids are used again, start times are not.
type Process struct {
	PID   int    `json:"pid"`
	Start uint64 `json:"start"` // clock ticks since boot
	Boot  string `json:"boot"`  // boot id: start times begin anew with each
}

// Identify names a running process; it fails for one that ended.
func Identify(pid int) (Process, error) {
	start, err := startTime(pid)
	return Process{pid, start, bootID()}, err
}

func (p Process) alive() bool {
	start, err := startTime(p.PID)
	return p.PID > 1 && err == nil && start == p.Start && p.Boot == bootID()
}

// startTime reads field 22 of /proc/PID/stat. A zombie has none: it runs no more.
func startTime(pid int) (uint64, error) {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return 0, err
	}
	return parseStat(b)
}

func parseStat(b []byte) (uint64, error) {
	// The second field is the command in parentheses and may hold anything.
	fields := bytes.Fields(b[bytes.LastIndexByte(b, ')')+1:])
	if len(fields) < 20 {
		return 0, errors.New("unexpected form of /proc/PID/stat")
	}
	if state := fields[0][0]; state == 'Z' || state == 'X' {
		return 0, os.ErrProcessDone
	}
	return strconv.ParseUint(string(fields[19]), 10, 64)
}

func bootID() string {
	b, _ := os.ReadFile("/proc/sys/kernel/random/boot_id")
	return string(bytes.TrimSpace(b))
}

// Save notes the process at path for LoadProcess.
func (p Process) Save(path string) error {
	b, err := json.Marshal(p)
	if err != nil {
		return err
	}
	return os.WriteFile(path, b, 0o600)
}

// LoadProcess returns the process noted at path if that very process still runs.
func LoadProcess(path string) (Process, bool) {
	b, err := os.ReadFile(path)
	if err != nil {
		return Process{}, false
	}
	var p Process
	if json.Unmarshal(b, &p) != nil || !p.alive() {
		return Process{}, false
	}
	return p, true
}

// watchExit returns a file that the runtime's poller finds readable when the process ends.
func (p Process) watchExit() (*os.File, error) {
	fd, err := unix.PidfdOpen(p.PID, unix.PIDFD_NONBLOCK)
	if err != nil {
		return nil, fmt.Errorf("watch process %d: %w", p.PID, err)
	}
	if !p.alive() { // it ended, and its pid may have been taken, before we had hold of it
		wire.CloseFD(fd)
		return nil, os.ErrProcessDone
	}
	return os.NewFile(uintptr(fd), "pidfd"), nil
}

// awaitExit blocks until the process behind a file of watchExit ends or the file is closed.
func awaitExit(f *os.File) error {
	raw, err := f.SyscallConn()
	if err != nil {
		return err
	}
	return raw.Read(func(fd uintptr) bool {
		p := []unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}
		n, err := unix.Poll(p, 0)
		return err == nil && n == 1
	})
}
