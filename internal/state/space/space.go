package state

import (
	"errors"
	"fmt"
	"sync/atomic"
	"syscall"
	"time"
)

// spaceGuard refuses writes while the disk is nearly full, so that Raft's own housekeeping always
// has room. Asking the kernel costs a microsecond; it is asked ten times a second at most.
type spaceGuard struct {
	dir  string // empty: unlimited
	min  uint64
	next atomic.Int64 // Unix nanoseconds of the next look
	free atomic.Uint64
}

const spaceInterval = 100 * time.Millisecond

func (g *spaceGuard) check() error {
	if g.dir == "" {
		return nil
	}
	if now := time.Now().UnixNano(); now >= g.next.Load() {
		var fs syscall.Statfs_t
		if err := syscall.Statfs(g.dir, &fs); err != nil {
			return fmt.Errorf("free space of %s: %w", g.dir, err)
		}
		g.free.Store(fs.Bavail * uint64(fs.Bsize))
		g.next.Store(now + int64(spaceInterval))
	}
	if free := g.free.Load(); free < g.min {
		return fmt.Errorf("%w: %d MB free in %s, %d MB are needed", ErrNoSpace, free>>20, g.dir, g.min>>20)
	}
	return nil
}

// isNoSpace recognizes a full disk and an exhausted quota.
func isNoSpace(err error) bool {
	return errors.Is(err, syscall.ENOSPC) || errors.Is(err, syscall.EDQUOT)
}
