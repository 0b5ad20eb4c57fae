package machine

import (
	"bufio"
	"bytes"
	"fmt"
	"os"
	"runtime"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// Facts are what was read of the machine at one moment.
type Facts struct {
	CPUs         int
	Memory       int64 // bytes, as much as containers may use
	MemoryFree   int64 // bytes available without swapping
	Disk         int64 // bytes of the file system that holds the pods
	DiskFree     int64
	InodesFree   float64 // share, 0 to 1
	ImageFree    float64 // share of the file system that holds the images
	ImageBytes   int64   // free there
	PIDs, MaxPID int64
	MachineID    string
	SystemUUID   string
	BootID       string
	Kernel       string
	OSImage      string
	// LowestPort is the lowest port an ordinary user may listen on.
	LowestPort int
}

// Read looks at the machine. dataDir and graphRoot are where pods and images live. What cannot be
// read stays zero; only without CPU and memory there is no node.
func Read(dataDir, graphRoot string) (Facts, error) {
	f := Facts{CPUs: runtime.NumCPU(), LowestPort: 1024}
	var err error
	if f.Memory, f.MemoryFree, err = memory(); err != nil {
		return f, err
	}
	if limit, ok := cgroupLimit(); ok && limit < f.Memory {
		f.Memory = limit
	}
	if st, err := statfs(dataDir); err == nil {
		f.Disk, f.DiskFree = int64(st.Blocks)*st.Bsize, int64(st.Bavail)*st.Bsize //nolint:gosec // sizes fit
		f.InodesFree = share(st.Ffree, st.Files)
	}
	f.ImageFree, f.ImageBytes = 1, f.DiskFree
	if st, err := statfs(graphRoot); err == nil {
		f.ImageFree, f.ImageBytes = share(st.Bavail, st.Blocks), int64(st.Bavail)*st.Bsize //nolint:gosec // sizes fit
	}
	f.PIDs, f.MaxPID = pids()
	f.MachineID = line("/etc/machine-id")
	f.SystemUUID = line("/sys/class/dmi/id/product_uuid")
	if f.SystemUUID == "" {
		f.SystemUUID = f.MachineID
	}
	f.BootID = line("/proc/sys/kernel/random/boot_id")
	f.Kernel = line("/proc/sys/kernel/osrelease")
	f.OSImage = osImage()
	if n, err := strconv.Atoi(line("/proc/sys/net/ipv4/ip_unprivileged_port_start")); err == nil {
		f.LowestPort = n
	}
	return f, nil
}

func statfs(path string) (unix.Statfs_t, error) {
	var st unix.Statfs_t
	err := unix.Statfs(path, &st)
	return st, err
}

func share(free, all uint64) float64 {
	if all == 0 {
		return 1
	}
	return float64(free) / float64(all)
}

func memory() (total, available int64, err error) {
	data, err := os.ReadFile("/proc/meminfo")
	if err != nil {
		return 0, 0, fmt.Errorf("read memory size: %w", err)
	}
	return parseMeminfo(data)
}

func parseMeminfo(data []byte) (total, available int64, err error) {
	s := bufio.NewScanner(bytes.NewReader(data))
	for s.Scan() {
		f := strings.Fields(s.Text())
		if len(f) < 2 {
			continue
		}
		n, err := strconv.ParseInt(f[1], 10, 64)
		if err != nil {
			continue
		}
		switch f[0] {
		case "MemTotal:":
			total = n << 10
		case "MemAvailable:":
			available = n << 10
		}
	}
	if total == 0 {
		return 0, 0, fmt.Errorf("read memory size: /proc/meminfo does not tell MemTotal")
	}
	return total, available, nil
}

// cgroupLimit is the memory the node's own control group leaves it, if that is limited.
func cgroupLimit() (int64, bool) {
	for _, file := range []string{"/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes"} {
		if n, err := strconv.ParseInt(line(file), 10, 64); err == nil && n > 0 {
			return n, true
		}
	}
	return 0, false
}

// pids returns how many tasks there are, and may be.
func pids() (now, most int64) {
	f := strings.Fields(line("/proc/loadavg"))
	if len(f) < 4 {
		return 0, 0
	}
	_, total, _ := strings.Cut(f[3], "/")
	now, err := strconv.ParseInt(total, 10, 64)
	if err != nil {
		return 0, 0
	}
	for _, file := range []string{"/proc/sys/kernel/pid_max", "/proc/sys/kernel/threads-max"} {
		if n, err := strconv.ParseInt(line(file), 10, 64); err == nil && (most == 0 || n < most) {
			most = n
		}
	}
	return now, most
}

func osImage() string {
	data, err := os.ReadFile("/etc/os-release")
	if err != nil {
		return "Linux"
	}
	for l := range strings.Lines(string(data)) {
		if v, ok := strings.CutPrefix(strings.TrimSpace(l), "PRETTY_NAME="); ok {
			return strings.Trim(v, `"'`)
		}
	}
	return "Linux"
}

// line reads a file of one line; "" when it cannot be read.
func line(path string) string {
	data, err := os.ReadFile(path) //nolint:gosec // fixed paths
	if err != nil {
		return ""
	}
	return strings.TrimSpace(string(data))
}
