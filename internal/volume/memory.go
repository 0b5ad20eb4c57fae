package volume

import (
	"bufio"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
	"k8s.io/apimachinery/pkg/types"
)

// MemoryRoot finds a tmpfs for memory-backed volumes: one that every container of a pod can mount from, that
// outlives their restarts, and that programs may be run from. A rootless user has $XDG_RUNTIME_DIR (it goes
// at the last logout, as unlingered containers do), root has /run if it is not mounted noexec; both have
// /dev/shm. dir, the place on disk, tells nodes on one machine apart.
func MemoryRoot(dir string) (string, error) {
	candidates := []string{"/run", "/dev/shm"}
	if os.Geteuid() != 0 {
		candidates = []string{os.Getenv("XDG_RUNTIME_DIR"), "/dev/shm"}
	}
	for _, c := range candidates {
		var st unix.Statfs_t
		if c == "" || unix.Statfs(c, &st) != nil || st.Type != unix.TMPFS_MAGIC || st.Flags&unix.ST_NOEXEC != 0 {
			continue
		}
		if unix.Access(c, unix.W_OK|unix.X_OK) != nil {
			continue
		}
		sum := sha256.Sum256([]byte(dir))
		return filepath.Join(c, "podman-swarm-"+strconv.Itoa(os.Geteuid()), hex.EncodeToString(sum[:6])), nil
	}
	return "", fmt.Errorf("no tmpfs for memory-backed volumes: none of %q is one that programs may be run from",
		candidates)
}

// memoryRoot is MemoryDir, or what MemoryRoot chooses.
func (v *Volumes) memoryRoot() (string, error) {
	if v.cfg.MemoryDir != "" {
		return v.cfg.MemoryDir, nil
	}
	v.mu.Lock()
	defer v.mu.Unlock()
	var err error
	if v.memory == "" {
		v.memory, err = MemoryRoot(v.cfg.Dir)
	}
	return v.memory, err
}

// memoryPath is the place of a memory-backed volume; its parents are made, closed to others.
func (v *Volumes) memoryPath(uid types.UID, name string) (string, error) {
	root, err := v.memoryRoot()
	if err != nil {
		return "", err
	}
	v.mu.Lock() // Teardown removes empty parents
	err = os.MkdirAll(filepath.Join(root, string(uid)), 0o700)
	v.mu.Unlock()
	if err != nil {
		return "", err
	}
	if v.cfg.MemoryDir != "" {
		return filepath.Join(root, string(uid), name), nil // chosen by the operator
	}
	// /dev/shm is everybody's: somebody else may have been there first.
	for _, dir := range []string{root, filepath.Dir(root)} {
		var st unix.Stat_t
		if err := unix.Lstat(dir, &st); err != nil {
			return "", &fs.PathError{Op: "lstat", Path: dir, Err: err}
		}
		if st.Mode&unix.S_IFMT != unix.S_IFDIR || int(st.Uid) != os.Geteuid() || st.Mode&0o077 != 0 {
			return "", fmt.Errorf("%s is not a directory of this user alone", dir)
		}
	}
	return filepath.Join(root, string(uid), name), nil
}

// mountTmpfs mounts a tmpfs of at most size bytes (0: the kernel's half of the memory) on dir.
func mountTmpfs(dir string, size int64) error {
	data := ""
	if size > 0 {
		data = fmt.Sprintf("size=%d", size)
	}
	withNoswap := strings.TrimPrefix(data+",noswap", ",")
	err := unix.Mount("tmpfs", dir, "tmpfs", 0, withNoswap)
	if errors.Is(err, unix.EINVAL) { // before Linux 6.4
		err = unix.Mount("tmpfs", dir, "tmpfs", 0, data)
	}
	if err != nil {
		return &fs.PathError{Op: "mount tmpfs", Path: dir, Err: err}
	}
	return nil
}

// isMountPoint compares with the parent; it does not see bind mounts within one file system.
func isMountPoint(dir string) bool {
	var self, parent unix.Stat_t
	return unix.Lstat(dir, &self) == nil && unix.Lstat(filepath.Dir(dir), &parent) == nil && self.Dev != parent.Dev
}

// unmountBelow unmounts everything at or below dir, the last mounted first.
func unmountBelow(dir string) error {
	mounts, err := mountsBelow(dir)
	if err != nil {
		return err
	}
	for _, m := range slices.Backward(mounts) {
		err := unix.Unmount(m, unix.UMOUNT_NOFOLLOW)
		if errors.Is(err, unix.EBUSY) {
			err = unix.Unmount(m, unix.UMOUNT_NOFOLLOW|unix.MNT_DETACH)
		}
		if err != nil {
			return &fs.PathError{Op: "unmount", Path: m, Err: err}
		}
	}
	return nil
}

// mountsBelow lists mount points at or below dir in the order they were mounted.
func mountsBelow(dir string) ([]string, error) {
	if real, err := filepath.EvalSymlinks(dir); err == nil {
		dir = real
	}
	f, err := os.Open("/proc/self/mountinfo")
	if err != nil {
		return nil, err
	}
	defer f.Close()
	var list []string
	lines := bufio.NewScanner(f)
	lines.Buffer(nil, 1<<20)
	for lines.Scan() {
		if at := mountPoint(lines.Text()); at != "" && within(at, dir) {
			list = append(list, at)
		}
	}
	return list, lines.Err()
}

// mountPoint is the fifth field of a line of mountinfo, in which blanks and backslashes are octal.
func mountPoint(line string) string {
	fields := strings.Fields(line)
	if len(fields) < 5 {
		return ""
	}
	return strings.NewReplacer(`\040`, " ", `\011`, "\t", `\012`, "\n", `\134`, `\`).Replace(fields[4])
}
