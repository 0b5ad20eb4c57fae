package operate

import (
	"strings"
	"testing"
	"time"

	"github.com/podman-swarm/podman-swarm/internal/hlc"
	"github.com/podman-swarm/podman-swarm/internal/node/nodetest"
	"github.com/podman-swarm/podman-swarm/internal/state/journal"
	"github.com/podman-swarm/podman-swarm/internal/swarm"
)

func TestRestoreRefuses(t *testing.T) {
	o := operateOn(t, "n1")
	b := o.backends[0]
	wantError(t, b.Files.RestoreFrom(t.Context(), strings.NewReader("no backup"), o.say), "damaged backup")
	wantError(t, b.Backups.Restore(t.Context(), "n1/none", o.say), `there is no backup "none" on node n1`)
	wantError(t, b.Backups.SetPolicy(t.Context(), swarm.BackupPolicy{Keep: 0}), "at least 1 backup")
	wantError(t, b.Backups.SetPolicy(t.Context(), swarm.BackupPolicy{Keep: 1, Every: 1}), "every 1m or more seldom")
	if p, err := b.Backups.Policy(t.Context()); err != nil || p != defaultPolicy() {
		t.Errorf("policy %+v, %v", p, err)
	}
	want := swarm.BackupPolicy{Every: swarm.Duration(2 * time.Hour), Keep: 3}
	if err := b.Backups.SetPolicy(t.Context(), want); err != nil {
		t.Fatal(err)
	}
	if p, err := b.Backups.Policy(t.Context()); err != nil || p != want {
		t.Errorf("policy %+v, %v", p, err)
	}
}

// conflict puts a record into the journal: side "ours" was kept, "theirs" was lost.
func conflict(t *testing.T, n *nodetest.Node, id, key string, lost journal.Side) {
	t.Helper()
	c := &journal.Conflict{
		ID: id, Key: key, At: time.Now().Unix(), Lost: lost,
		Kept: journal.Side{Lineage: "a", Stamp: hlc.Stamp(2 << 32), Value: []byte("ours")},
	}
	n.Put(t, journal.Prefix+id, string(c.Encode()))
}

func TestConflicts(t *testing.T) {
	o := operateOn(t, "n1")
	n, conflicts := o.nodes[0], o.backends[0].Conflicts
	n.Put(t, "/configmaps/default/a", "ours")
	n.Put(t, "/configmaps/default/b", "ours")
	conflict(t, n, "0001", "/configmaps/default/a", journal.Side{Lineage: "b", Stamp: hlc.Stamp(1 << 32), Value: []byte("theirs")})
	conflict(t, n, "0002", "/configmaps/default/b", journal.Side{Lineage: "b", Stamp: hlc.Stamp(1 << 32), Deleted: true})

	list, err := conflicts.List(t.Context())
	if err != nil || len(list) != 2 || list[0].Resource != "configmaps" || list[0].Name != "a" || list[0].Namespace != "default" || list[0].Overwritten.Value != nil {
		t.Fatalf("%+v, %v", list, err)
	}
	one, err := conflicts.Get(t.Context(), list[0].ID)
	if err != nil || string(one.Overwritten.Value.Raw) != "theirs" || string(one.Kept.Value.Raw) != "ours" {
		t.Errorf("%+v, %v", one, err)
	}
	_, err = conflicts.Get(t.Context(), "none")
	wantError(t, err, `the journal has no conflict "none"`)
	wantError(t, conflicts.Undo(t.Context(), "none", swarm.UndoRequest{}), `the journal has no conflict "none"`)

	if err := conflicts.Undo(t.Context(), list[0].ID, swarm.UndoRequest{}); err != nil {
		t.Fatal(err)
	}
	if e, ok := n.Store.View().Get("/configmaps/default/a"); !ok || string(e.Value) != "theirs" {
		t.Errorf("undone to %+v", e)
	}
	// What was changed since needs a second thought; a deletion can be put back too.
	n.Put(t, "/configmaps/default/b", "changed")
	wantError(t, conflicts.Undo(t.Context(), list[1].ID, swarm.UndoRequest{}), "was changed again after the merge")
	if err := conflicts.Undo(t.Context(), list[1].ID, swarm.UndoRequest{Force: true}); err != nil {
		t.Fatal(err)
	}
	if e, ok := n.Store.View().Get("/configmaps/default/b"); ok {
		t.Errorf("undone to %+v, want it deleted", e)
	}
}
