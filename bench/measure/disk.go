package measure

import (
	"context"
	"errors"
	"os"
	"syscall"
	"time"
)

const (
	syncSize  = 2 << 10
	syncEvery = 25 * time.Millisecond
)

// Syncs takes the time of small appends with fdatasync below dir, until ctx ends: no acknowledged
// write can be faster than two of them, one after the other.
func Syncs(ctx context.Context, dir string) (took []float64, err error) {
	f, err := os.CreateTemp(dir, "sync-")
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, f.Close(), os.Remove(f.Name())) }()
	block := make([]byte, syncSize)
	for ctx.Err() == nil {
		begin := time.Now()
		if _, err := f.Write(block); err != nil {
			return took, err
		}
		if err := syscall.Fdatasync(int(f.Fd())); err != nil {
			return took, err
		}
		took = append(took, MS(time.Since(begin)))
		_ = Sleep(ctx, syncEvery)
	}
	return took, nil
}
