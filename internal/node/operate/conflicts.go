package operate

import (
	"bytes"
	"context"
	"errors"
	"time"

	"github.com/podman-swarm/podman-swarm/internal/node/operate/overwrite"
	"github.com/podman-swarm/podman-swarm/internal/state"
	"github.com/podman-swarm/podman-swarm/internal/state/journal"
	"github.com/podman-swarm/podman-swarm/internal/state/machine"
	"github.com/podman-swarm/podman-swarm/internal/swarm"
)

// conflicts is the journal of what merges overwrote.
type conflicts struct {
	store   *state.Store
	derived *overwrite.Derived
}

// List implements swarm.Conflicts.
func (c conflicts) List(ctx context.Context) ([]swarm.Conflict, error) {
	if err := c.store.Barrier(ctx); err != nil {
		return nil, unavailable(err)
	}
	out, view := []swarm.Conflict{}, c.store.View()
	for entry, err := range machine.Conflicts(view) {
		if err != nil {
			return nil, err
		}
		shown := overwrite.Describe(entry)
		shown.Undone, shown.Derived = undone(view, entry.ID), c.derived.Is(entry)
		shown.Kept.Value, shown.Overwritten.Value = nil, nil
		out = append(out, shown)
	}
	return out, nil
}

// Get implements swarm.Conflicts.
func (c conflicts) Get(ctx context.Context, id string) (swarm.Conflict, error) {
	if err := c.store.Barrier(ctx); err != nil {
		return swarm.Conflict{}, unavailable(err)
	}
	view := c.store.View()
	entry, err := machine.GetConflict(view, id)
	if errors.Is(err, machine.ErrNoConflict) {
		return swarm.Conflict{}, swarm.NotFound("the journal has no conflict %q: see psctl swarm conflicts list", id)
	}
	if err != nil {
		return swarm.Conflict{}, err
	}
	shown := overwrite.Describe(entry)
	shown.Undone, shown.Derived = undone(view, id), c.derived.Is(entry)
	return shown, nil
}

// Undo implements swarm.Conflicts: it writes the overwritten value back as a new write. The value that
// it replaces is not lost either: the journal's entry holds both until it expires.
func (c conflicts) Undo(ctx context.Context, id string, req swarm.UndoRequest) error {
	if err := c.store.Barrier(ctx); err != nil {
		return unavailable(err)
	}
	view := c.store.View()
	entry, err := machine.GetConflict(view, id)
	if errors.Is(err, machine.ErrNoConflict) {
		return swarm.NotFound("the journal has no conflict %q: see psctl swarm conflicts list", id)
	}
	if err != nil {
		return err
	}
	current, _ := view.Get(entry.Key)
	if !req.Force && !isKept(entry, current) {
		return swarm.Refused("%s was changed again after the merge: look at it first, then say --force to replace it all the same", entry.Key)
	}
	command, needed := machine.Undo(entry, current)
	if !needed {
		return nil
	}
	write := state.Write{Key: command.Key, Value: command.Value, Delete: command.Delete, Expect: command.Expect}
	if command.Expires > 0 {
		write.TTL = max(1, command.Expires-time.Now().Unix())
	}
	_, err = c.store.Apply(ctx, write)
	if errors.Is(err, state.ErrConflict) {
		return swarm.Refused("%s was changed at this very moment: look at it and try again", entry.Key)
	}
	if err != nil {
		return unavailable(err)
	}
	return c.mark(ctx, id)
}

// undonePrefix is where it is kept which conflicts were undone, and when, as long as they are.
const undonePrefix = "/swarm/undone/"

func (c conflicts) mark(ctx context.Context, id string) error {
	_, err := c.store.Apply(ctx, state.Write{
		Key: undonePrefix + id, Value: []byte(time.Now().UTC().Format(time.RFC3339)), Expect: state.Any, TTL: int64(journal.Age / time.Second),
	})
	return unavailable(err)
}

// undone is when a conflict was undone; zero: it was not.
func undone(view state.View, id string) time.Time {
	e, ok := view.Get(undonePrefix + id)
	if !ok {
		return time.Time{}
	}
	at, err := time.Parse(time.RFC3339, string(e.Value))
	if err != nil {
		return time.Time{}
	}
	return at
}

// isKept tells whether the key still holds what the merge kept.
func isKept(c *journal.Conflict, current *state.Entry) bool {
	if current == nil || c.Kept.Deleted {
		return current == nil && c.Kept.Deleted
	}
	return bytes.Equal(current.Value, c.Kept.Value)
}
