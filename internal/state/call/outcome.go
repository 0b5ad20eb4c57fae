package call

import (
	"errors"
	"fmt"

	"github.com/podman-swarm/podman-swarm/internal/state/machine"
	"github.com/podman-swarm/podman-swarm/internal/state/space"
)

var (
	// ErrRetry says that a write certainly did not happen and may be tried again.
	ErrRetry = errors.New("state: not proposed")
	// ErrUnsent says that a request certainly did not reach the peer, as when nothing listens there.
	ErrUnsent = errors.New("the request did not go out")
)

// Unsent makes of what never reached the leader something to try again. A leader that ended, rather than its
// machine, refuses connections until another is elected: nobody need hear of that.
func Unsent(err error) error { return fmt.Errorf("%w: %w", ErrRetry, err) }

// Of is the answer when an error ended what was asked for; nil: it was done.
func (a Answer) Of(err error) Answer {
	switch {
	case err == nil:
	case errors.Is(err, machine.ErrConflict):
		a.Status = Conflict
	case errors.Is(err, space.ErrNone):
		a.Status, a.Body = NoSpace, []byte(err.Error())
	case errors.Is(err, ErrRetry):
		a.Status, a.Body = Retry, nil
	default:
		a.Status, a.Body = Unknown, []byte(err.Error())
	}
	return a
}

// Err is what went wrong at the peer. A conflict is none: it has a body.
func (a Answer) Err() error {
	switch {
	case a.Status == Retry:
		return ErrRetry
	case a.Status == NoSpace:
		return fmt.Errorf("%w on the leader: %s", space.ErrNone, a.Body)
	case a.Status > Conflict:
		return fmt.Errorf("leader: %s", a.Body)
	}
	return nil
}

// Validate tells what is wrong with a mutation, whoever asks for it.
func (m Mutation) Validate() error {
	switch {
	case m.Key == "" || len(m.Key) > machine.MaxKey:
		return fmt.Errorf("write: key of %d bytes, want 1 to %d", len(m.Key), machine.MaxKey)
	case len(m.Value) > machine.MaxValue:
		return fmt.Errorf("write %s: value of %d bytes, at most %d are allowed", m.Key, len(m.Value), machine.MaxValue)
	case m.TTL < 0:
		return fmt.Errorf("write %s: negative TTL", m.Key)
	}
	return nil
}
