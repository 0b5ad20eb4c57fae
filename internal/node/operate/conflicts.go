package operate

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"strings"
	"time"

	"k8s.io/apimachinery/pkg/api/meta"

	"github.com/podman-swarm/podman-swarm/internal/hlc"
	"github.com/podman-swarm/podman-swarm/internal/node/stored"
	"github.com/podman-swarm/podman-swarm/internal/state"
	"github.com/podman-swarm/podman-swarm/internal/state/journal"
	"github.com/podman-swarm/podman-swarm/internal/state/machine"
	"github.com/podman-swarm/podman-swarm/internal/swarm"
)

// conflicts is the journal of what merges overwrote.
type conflicts struct {
	store   *state.Store
	derived *derivable
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
		shown := describe(entry)
		shown.Undone, shown.Derived = undone(view, entry.ID), c.derived.is(entry)
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
	shown := describe(entry)
	shown.Undone, shown.Derived = undone(view, id), c.derived.is(entry)
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

func describe(c *journal.Conflict) swarm.Conflict {
	out := swarm.Conflict{
		ID: c.ID, Key: c.Key, Time: time.Unix(c.At, 0).UTC(),
		Kept: version(c.Kept), Overwritten: version(c.Lost),
	}
	out.Resource, out.Namespace, out.Name = fromKey(c.Key)
	// Objects know better than keys whether they have a namespace.
	for _, side := range []journal.Side{c.Kept, c.Lost} {
		if obj := stored.Object(side.Value); obj != nil {
			if m, err := meta.Accessor(obj); err == nil {
				out.Namespace, out.Name = m.GetNamespace(), m.GetName()
				break
			}
		}
	}
	return out
}

func version(s journal.Side) swarm.Version {
	v := swarm.Version{Written: hlc.Stamp.Time(s.Stamp).UTC(), Lineage: s.Lineage, Deleted: s.Deleted}
	if s.Deleted {
		return v
	}
	if obj := stored.Object(s.Value); obj != nil {
		if text, err := json.Marshal(obj); err == nil {
			v.Value = &swarm.Value{Object: text}
			return v
		}
	}
	v.Value = &swarm.Value{Raw: s.Value}
	return v
}

// renamed are the resources whose keys begin with something else, upstream's oldest.
func renamed() *strings.Replacer {
	return strings.NewReplacer("/minions/", "/nodes/", "/services/specs/", "/services/", "/services/endpoints/", "/endpoints/")
}

// fromKey reads what a key tells: /RESOURCE/... or, for custom resources, /GROUP/RESOURCE/..., then
// [NAMESPACE/]NAME.
func fromKey(key string) (resource, namespace, name string) {
	parts := strings.Split(strings.TrimPrefix(renamed().Replace(key), "/"), "/")
	if len(parts) < 2 || strings.HasPrefix(key, ownKeys) {
		return "", "", ""
	}
	resource, parts = parts[0], parts[1:]
	if strings.Contains(resource, ".") && len(parts) > 1 { // a group
		resource, parts = parts[0]+"."+resource, parts[1:]
	}
	name = parts[len(parts)-1]
	if len(parts) > 1 {
		namespace = parts[len(parts)-2]
	}
	return resource, namespace, name
}
