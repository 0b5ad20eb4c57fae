package memory

import (
	"bufio"
	"errors"
	"os"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// dropText tells the kernel that this process does not need its executable's pages now. They are
// clean pages of a file: whatever is still used is mapped again from the page cache at once.
func dropText() error {
	exe, err := os.Readlink("/proc/self/exe")
	if err != nil {
		return err
	}
	maps, err := os.Open("/proc/self/maps")
	if err != nil {
		return err
	}
	defer maps.Close()
	var errs []error
	for lines := bufio.NewScanner(maps); lines.Scan(); {
		from, to, ok := readOnlyRange(lines.Text(), exe)
		if !ok {
			continue
		}
		// The raw call: the range is the kernel's mapping, not a Go slice.
		if _, _, errno := unix.Syscall(unix.SYS_MADVISE, from, to-from, unix.MADV_DONTNEED); errno != 0 {
			errs = append(errs, errno)
		}
	}
	return errors.Join(errs...)
}

// readOnlyRange parses a line of /proc/self/maps and returns its range when it is a mapping of exe
// that cannot be written to.
func readOnlyRange(line, exe string) (from, to uintptr, ok bool) {
	f := strings.Fields(line)
	if len(f) < 6 || f[5] != exe || strings.Contains(f[1], "w") {
		return 0, 0, false
	}
	lo, hi, _ := strings.Cut(f[0], "-")
	a, err1 := strconv.ParseUint(lo, 16, 64)
	z, err2 := strconv.ParseUint(hi, 16, 64)
	return uintptr(a), uintptr(z), err1 == nil && err2 == nil && z > a
}
