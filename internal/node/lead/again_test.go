package lead

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"testing"
	"testing/synctest"
	"time"
)

var (
	errTransient = errors.New("discovery failed")
	errFatal     = errors.New("still running")
)

func TestAgain(t *testing.T) {
	for name, tc := range map[string]struct {
		run  func(ctx context.Context, n int) error // the n-th run
		runs int
		took time.Duration
		want error
	}{
		"the office ends": {func(ctx context.Context, _ int) error { <-ctx.Done(); return nil }, 1, time.Hour, nil},
		"errors, later each time": {func(ctx context.Context, n int) error {
			if n < 4 {
				return errTransient
			}
			<-ctx.Done()
			return ctx.Err()
		}, 4, time.Hour, nil},
		"an error because the office ended": {func(ctx context.Context, _ int) error {
			<-ctx.Done()
			return fmt.Errorf("build: %w", errTransient)
		}, 1, time.Hour, nil},
		"a fatal one": {func(_ context.Context, n int) error {
			if n == 2 {
				return fmt.Errorf("stop: %w", errFatal)
			}
			return errTransient
		}, 2, firstPause, errFatal},
		"a fatal one because the office ended": {func(ctx context.Context, _ int) error {
			<-ctx.Done()
			return errFatal
		}, 1, time.Hour, errFatal},
		"a first error again, after a run that lasted": {func(ctx context.Context, n int) error {
			switch n {
			case 6:
				<-time.After(2 * mostPause)
			case 8:
				return errFatal
			}
			return errTransient
		}, 8, (1+2+4+8+16)*time.Second + 2*mostPause + (1+2)*time.Second, errFatal},
		"errors for ever": {func(context.Context, int) error { return errTransient }, 124, time.Hour, nil},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				office, end := context.WithTimeout(t.Context(), time.Hour)
				defer end()
				begin, n := time.Now(), 0
				err := Again(office, slog.New(slog.DiscardHandler), "it", errFatal, func(ctx context.Context) error {
					n++
					return tc.run(ctx, n)
				})
				if took := time.Since(begin); !errors.Is(err, tc.want) || n != tc.runs || took != tc.took {
					t.Errorf("%d runs in %v, err %v; want %d in %v, %v", n, took, err, tc.runs, tc.took, tc.want)
				}
			})
		})
	}
}
