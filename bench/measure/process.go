package measure

import (
	"bufio"
	"fmt"
	"os"
	"runtime"
	"strconv"
	"strings"
	"time"
)

// Use is the memory that a process holds, in MB.
type Use struct{ RSS, Anon float64 }

// ProcessUse reads the memory of a process.
func ProcessUse(pid int) (Use, error) {
	f, err := os.Open(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		return Use{}, err
	}
	defer f.Close()
	var u Use
	for lines := bufio.NewScanner(f); lines.Scan(); {
		var kb float64
		switch line := lines.Text(); {
		case scan(line, "VmRSS: %g kB", &kb):
			u.RSS = kb / 1024
		case scan(line, "RssAnon: %g kB", &kb):
			u.Anon = kb / 1024
		}
	}
	return u, nil
}

func scan(line, format string, value *float64) bool {
	_, err := fmt.Sscanf(line, format, value)
	return err == nil
}

// Tick is the unit of processor time in /proc.
const Tick = time.Second / 100

// ProcessTime is the processor time a process has used.
func ProcessTime(pid int) (time.Duration, error) {
	stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return 0, err
	}
	fields := strings.Fields(string(stat[strings.LastIndexByte(string(stat), ')')+1:]))
	return ticks(fields[11:13]) // utime and stime
}

// MachineTime is the processor time that everything on this machine has used.
func MachineTime() (time.Duration, error) {
	stat, err := os.ReadFile("/proc/stat")
	if err != nil {
		return 0, err
	}
	line, _, _ := strings.Cut(string(stat), "\n")
	f := strings.Fields(line) // cpu user nice system idle iowait irq softirq steal; guests are in user already
	return ticks(append(f[1:4:4], f[6:9]...))
}

func ticks(fields []string) (time.Duration, error) {
	var sum time.Duration
	for _, field := range fields {
		n, err := strconv.ParseInt(field, 10, 64)
		if err != nil {
			return 0, fmt.Errorf("read processor time: %w", err)
		}
		sum += time.Duration(n) * Tick
	}
	return sum, nil
}

// Busy says in words how much of the machine others used: total is what everything used in the
// window, ours what was measured.
func Busy(total, ours, window time.Duration) string {
	share := 100 * max(0, total-ours).Seconds() / window.Seconds() / float64(runtime.NumCPU())
	return fmt.Sprintf("others used %.0f %% of the machine", share)
}
