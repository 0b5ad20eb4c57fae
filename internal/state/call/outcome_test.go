package call

import (
	"errors"
	"strings"
	"testing"

	"github.com/podman-swarm/podman-swarm/internal/state/machine"
	"github.com/podman-swarm/podman-swarm/internal/state/space"
)

// What went wrong at the leader is the same error for who asked it.
func TestOutcomesTravel(t *testing.T) {
	for _, want := range []error{nil, machine.ErrConflict, space.ErrNone, ErrRetry, Unsent(ErrUnsent), errors.New("disk on fire")} {
		a, err := DecodeAnswer(Answer{Revision: 7}.Of(want).Encode())
		if err != nil || a.Revision != 7 {
			t.Fatalf("%+v, %v", a, err)
		}
		got := a.Err()
		switch {
		case want == nil, errors.Is(want, machine.ErrConflict): // a conflict is an answer
			if got != nil || (a.Status == Conflict) != (want != nil) {
				t.Errorf("%v became %v, status %d", want, got, a.Status)
			}
		case errors.Is(want, ErrRetry):
			if !errors.Is(got, ErrRetry) {
				t.Errorf("%v became %v", want, got)
			}
		case errors.Is(want, space.ErrNone):
			if !errors.Is(got, space.ErrNone) {
				t.Errorf("%v became %v", want, got)
			}
		default:
			if got == nil || !strings.Contains(got.Error(), want.Error()) || errors.Is(got, ErrRetry) {
				t.Errorf("%v became %v", want, got)
			}
		}
	}
}
