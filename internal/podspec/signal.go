package podspec

import (
	"fmt"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// The C library keeps the first two real-time signals for itself.
const sigRTMin, sigRTMax = 34, 64

// signalNumber reads "SIGTERM", "SIGRTMIN+3" or "SIGRTMAX-2".
func signalNumber(name string) (int, error) {
	if n := unix.SignalNum(name); n != 0 {
		return int(n), nil
	}
	base, sign, rest := 0, 1, ""
	switch {
	case strings.HasPrefix(name, "SIGRTMIN"):
		base, rest = sigRTMin, strings.TrimPrefix(name, "SIGRTMIN")
	case strings.HasPrefix(name, "SIGRTMAX"):
		base, sign, rest = sigRTMax, -1, strings.TrimPrefix(name, "SIGRTMAX")
	}
	if base != 0 {
		n, err := strconv.Atoi("0" + strings.TrimLeft(rest, "+-"))
		if err == nil && n <= sigRTMax-sigRTMin {
			return base + sign*n, nil
		}
	}
	return 0, fmt.Errorf("unknown stop signal %q", name)
}
