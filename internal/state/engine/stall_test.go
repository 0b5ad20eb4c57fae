package engine

import (
	"slices"
	"testing"
	"testing/synctest"
	"time"
)

func TestStall(t *testing.T) {
	for _, c := range []struct {
		takes time.Duration
		want  []bool
	}{
		{0, nil},
		{patience - time.Millisecond, nil},
		{patience + time.Millisecond, []bool{true, false}},
		{time.Hour, []bool{true, false}},
	} {
		synctest.Test(t, func(t *testing.T) {
			var told []bool
			s := &stall{changed: func(on bool) { told = append(told, on) }}
			for range 2 { // it is the same the next time
				told = nil
				_ = s.write(func() error { <-time.After(c.takes); return nil })
				if s.on.Load() || !slices.Equal(told, c.want) {
					t.Errorf("a write of %v: told %v, want %v, stalled afterwards %v", c.takes, told, c.want, s.on.Load())
				}
			}
			synctest.Wait()
			<-time.After(2 * patience)
			if s.on.Load() || len(told) != len(c.want) {
				t.Errorf("long after a write of %v: %v", c.takes, told)
			}
		})
	}
}
