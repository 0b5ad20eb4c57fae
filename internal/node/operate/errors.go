package operate

import (
	"errors"

	"github.com/podman-swarm/podman-swarm/internal/state"
	"github.com/podman-swarm/podman-swarm/internal/swarm"
)

// unavailable tells a caller that the store cannot do it now, and leaves other errors as they are.
func unavailable(err error) error {
	switch {
	case errors.Is(err, state.ErrNoLeader), errors.Is(err, state.ErrClosed):
		return swarm.Unavailable("nobody orders writes at the moment (%v): try again in a few seconds, see podman-swarm status", err)
	case errors.Is(err, state.ErrNoSpace):
		return swarm.Unavailable("%v: make room on the disk", err)
	}
	return err
}
