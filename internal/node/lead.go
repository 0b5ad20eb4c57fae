package node

import (
	"context"

	"github.com/podman-swarm/podman-swarm/internal/state"
)

// whileLeading runs what only one node may do, as long as this one leads: it begins when leadership
// comes, and has ended before it is given away on purpose. After an error it does not begin again.
func whileLeading(ctx context.Context, store *state.Store, duty func(context.Context) error) error {
	for {
		leads, changed := store.Leads()
		if leads {
			if err := term(ctx, store, duty); err != nil {
				return err
			}
			continue
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return nil
		}
		if ctx.Err() != nil {
			return nil
		}
	}
}

// term runs the duty until leadership goes or ctx ends.
func term(ctx context.Context, store *state.Store, duty func(context.Context) error) error {
	office, end := context.WithCancel(ctx)
	defer end()
	done := make(chan error, 1)
	go func() { done <- duty(office) }()
	for {
		leads, changed := store.Leads()
		if !leads {
			end()
			return <-done
		}
		select {
		case err := <-done:
			return err
		case <-changed:
		}
	}
}
