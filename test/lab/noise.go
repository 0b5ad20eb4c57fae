package lab

import (
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"time"
)

// Noise is what others take of this machine's processors. A bound on time is a promise about an
// otherwise idle machine: on a busy one it is stretched by exactly what was taken from the lab.
type Noise struct {
	at         time.Time
	busy, ours time.Duration
}

// mostNoise limits Factor: with more than that taken, nothing can be said.
const mostNoise = 4

// Listen begins a measurement.
func Listen() (Noise, error) {
	n := Noise{at: time.Now()}
	stat, err := os.ReadFile("/proc/stat")
	if err != nil {
		return n, err
	}
	line, _, _ := strings.Cut(string(stat), "\n")
	for i, field := range strings.Fields(line) {
		// cpu user nice system idle iowait irq softirq steal; guests are in user already
		if i == 0 || i == 4 || i == 5 || i > 8 {
			continue
		}
		ticks, err := strconv.ParseInt(field, 10, 64)
		if err != nil {
			return n, fmt.Errorf("read /proc/stat: %w", err)
		}
		n.busy += time.Duration(ticks) * time.Second / 100
	}
	if n.ours, err = cgroupTime(labCgroup); err != nil {
		return n, err
	}
	self, err := selfTime()
	n.ours += self
	return n, err
}

// Factor says by how much the machine was slower for the lab since Listen because of what others
// took: 1 on a quiet machine.
func (n Noise) Factor() float64 {
	now, err := Listen()
	if err != nil {
		return 1
	}
	return stretch(now.at.Sub(n.at)*time.Duration(runtime.NumCPU()), now.busy-n.busy-(now.ours-n.ours))
}

// Used says how many processors the lab and this process took since Listen.
func (n Noise) Used() (float64, error) {
	now, err := Listen()
	if err != nil {
		return 0, err
	}
	return (now.ours - n.ours).Seconds() / now.at.Sub(n.at).Seconds(), nil
}

// stretch is how much longer things take with `others` gone from `capacity`.
func stretch(capacity, others time.Duration) float64 {
	if capacity <= 0 || others <= 0 {
		return 1
	}
	if others >= capacity {
		return mostNoise
	}
	return min(mostNoise, float64(capacity)/float64(capacity-others))
}

const labCgroup = "/sys/fs/cgroup/cpuacct/lab"

// CPUTime is the CPU time of everything that ever ran on the host.
func (h *Host) CPUTime() (time.Duration, error) { return cgroupTime(labCgroup + "/" + h.Name) }

// ProcessTime is the CPU time a process has used.
func ProcessTime(pid int) (time.Duration, error) {
	stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return 0, err
	}
	fields := strings.Fields(string(stat[strings.LastIndexByte(string(stat), ')')+1:]))
	var sum int64
	for _, field := range fields[11:13] { // utime and stime
		ticks, err := strconv.ParseInt(field, 10, 64)
		if err != nil {
			return 0, fmt.Errorf("read /proc/%d/stat: %w", pid, err)
		}
		sum += ticks
	}
	return time.Duration(sum) * time.Second / 100, nil
}

// Traffic is how many bytes the host has received and sent since it was booted.
func (h *Host) Traffic() (uint64, error) {
	pid, err := os.ReadFile(filepath.Join(h.Work, "state", h.Name, "pid"))
	if err != nil {
		return 0, err
	}
	table, err := os.ReadFile("/proc/" + strings.TrimSpace(string(pid)) + "/net/dev")
	if err != nil {
		return 0, err
	}
	for line := range strings.Lines(string(table)) {
		name, counters, _ := strings.Cut(strings.TrimSpace(line), ":")
		fields := strings.Fields(counters)
		if name != "eth0" || len(fields) < 9 {
			continue
		}
		received, err := strconv.ParseUint(fields[0], 10, 64)
		if err != nil {
			return 0, err
		}
		sent, err := strconv.ParseUint(fields[8], 10, 64)
		return received + sent, err
	}
	return 0, fmt.Errorf("%s has no eth0", h.Name)
}

func selfTime() (time.Duration, error) { return ProcessTime(os.Getpid()) }

func cgroupTime(dir string) (time.Duration, error) {
	data, err := os.ReadFile(dir + "/cpuacct.usage")
	if err != nil {
		return 0, err
	}
	ns, err := strconv.ParseInt(strings.TrimSpace(string(data)), 10, 64)
	if err != nil {
		return 0, fmt.Errorf("read %s: %w", dir, err)
	}
	return time.Duration(ns), nil
}
