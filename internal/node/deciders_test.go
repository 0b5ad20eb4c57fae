package node

import (
	"testing"
	"testing/synctest"
	"time"
)

// TestReplaced: a failure beside which the keys change, be it a moment later, is no failure.
func TestReplaced(t *testing.T) {
	for name, tc := range map[string]struct {
		after time.Duration // 0: never
		want  bool
	}{
		"changed already":  {-1, true},
		"about to change":  {replacing / 2, true},
		"keys are at rest": {0, false},
		"unrelated change": {2 * replacing, false},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				changed := make(chan struct{})
				if tc.after < 0 {
					close(changed)
				} else if tc.after > 0 {
					time.AfterFunc(tc.after, func() { close(changed) })
				}
				if got := replaced(t.Context(), changed); got != tc.want {
					t.Errorf("got %t, want %t", got, tc.want)
				}
			})
		})
	}
}
