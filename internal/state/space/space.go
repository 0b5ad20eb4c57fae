package space

import (
	"errors"
	"fmt"
	"sync/atomic"
	"syscall"
	"time"
)

// ErrNone says that the disk is (nearly) full.
var ErrNone = errors.New("state: no space left for writes")

// Guard refuses writes while the disk is nearly full, so that Raft's own housekeeping always
// has room. Asking the kernel costs a microsecond; it is asked ten times a second at most.
type Guard struct {
	Dir  string       // empty: unlimited
	Min  uint64       // bytes
	next atomic.Int64 // Unix nanoseconds of the next look
	free atomic.Uint64
}

// Interval is how long the kernel's answer is good for.
const Interval = 100 * time.Millisecond

// Check returns ErrNone when there is no room.
func (g *Guard) Check() error {
	if g.Dir == "" {
		return nil
	}
	if now := time.Now().UnixNano(); now >= g.next.Load() {
		var fs syscall.Statfs_t
		if err := syscall.Statfs(g.Dir, &fs); err != nil {
			return fmt.Errorf("free space of %s: %w", g.Dir, err)
		}
		g.free.Store(fs.Bavail * uint64(fs.Bsize))
		g.next.Store(now + int64(Interval))
	}
	if free := g.free.Load(); free < g.Min {
		return fmt.Errorf("%w: %d MB free in %s, %d MB are needed", ErrNone, free>>20, g.Dir, g.Min>>20)
	}
	return nil
}

// Is recognizes a full disk and an exhausted quota.
func Is(err error) bool {
	return errors.Is(err, syscall.ENOSPC) || errors.Is(err, syscall.EDQUOT)
}
