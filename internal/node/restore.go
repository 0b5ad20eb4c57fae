package node

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/podman-swarm/podman-swarm/internal/backup"
	"github.com/podman-swarm/podman-swarm/internal/join"
	"github.com/podman-swarm/podman-swarm/internal/node/datadir"
	"github.com/podman-swarm/podman-swarm/internal/node/logs"
	"github.com/podman-swarm/podman-swarm/internal/node/operate"
	"github.com/podman-swarm/podman-swarm/internal/pki"
	"github.com/podman-swarm/podman-swarm/internal/state"
)

// Restore fills an empty data directory from a backup, without running it: the swarm begins again
// with this node, and the others join it anew. One that was cut off is refused by everything but
// reset and another restore, which begins from the start.
func Restore(ctx context.Context, cfg Config, file string, out io.Writer) error {
	c, err := backup.Open(file)
	if err != nil {
		return err
	}
	log := logs.New(cfg.LogLevel)
	if cfg.Join != "" || cfg.EncryptionKey != "" { // the file of a node that joined once has them still
		log.Info("join and encryptionKey are not heeded: the swarm and its keys are those of the backup", "join", cfg.Join)
		cfg.Join, cfg.JoinToken, cfg.EncryptionKey = "", "", ""
	}
	if err := making(ctx, cfg, "restore", func(h *host) error { return h.restore(ctx, c, file) }); err != nil {
		return err
	}
	_, err = fmt.Fprintf(out, "Restored %s: swarm %s of %s, revision %d, %d objects. Start the agent here, remove the other nodes (psctl node rm NAME),\n"+
		"then let their machines join anew: podman-swarm token create\n", file, c.Info.Cluster, c.Info.Created.Format(time.RFC3339), c.Info.Revision, c.Info.Objects)
	return err
}

// restore marks the directory while it fills it. The mark of a try before stays when this one fails.
func (h *host) restore(ctx context.Context, c backup.Contents, file string) error {
	made := []string{"pki", "state", datadir.MemberFile}
	for _, name := range append(slices.Clone(made), datadir.JoiningFile) {
		if exists(h.dir.File(name)) && !h.dir.Unfinished() {
			return fmt.Errorf("%s holds a node already: run podman-swarm reset --yes first, or use another --data-dir", h.cfg.DataDir)
		}
	}
	if err := h.dir.Begin(file); err != nil {
		return err
	}
	for _, name := range made {
		if err := os.RemoveAll(h.dir.File(name)); err != nil {
			return fmt.Errorf("remove what was cut off: %w", err)
		}
	}
	if err := h.fill(ctx, c); err != nil {
		return err
	}
	return h.dir.Finish()
}

func (h *host) fill(ctx context.Context, c backup.Contents) error {
	if err := pki.InstallBundle(h.dir.File("pki"), c.Keys); err != nil {
		return err
	}
	err := state.Import(ctx, state.Config{
		Dir: h.dir.File("state"), NodeID: h.cfg.NodeName, Addr: h.cfg.wireAddr(), Log: h.log.With("part", "state"),
	}, bytes.NewReader(c.Snapshot))
	if err != nil {
		return err
	}
	if _, err = h.enlist(ctx); err != nil {
		return err
	}
	return h.forgetNodes(ctx)
}

// forgottenFor is how long nodes of before are refused: longer than a certificate of a node lives.
const forgottenFor = 100 * 24 * time.Hour

// forgetNodes strikes out who belonged to the swarm that the backup is of: each machine joins anew,
// with a key of its own, also under its old name. The authority is the same as before, so what the old
// machines hold is in order still: they are removed nodes from now on, and who was removed stays so.
func (h *host) forgetNodes(ctx context.Context) error {
	store, err := state.Open(ctx, state.Config{
		Dir: h.dir.File("state"), NodeID: h.cfg.NodeName, Addr: h.cfg.wireAddr(), Log: h.log.With("part", "state"),
	})
	if err != nil {
		return err
	}
	var errs []error
	view := store.View()
	view.Ascend(join.NodesPrefix, join.NodesPrefix+"\xff", func(e *state.Entry) bool {
		errs = append(errs, forget(ctx, store, view, e))
		return true
	})
	return errors.Join(errors.Join(errs...), store.Close())
}

// forget makes the record of a node a removal. It names the key, which is exact; when the name has had
// another one, or the record does not tell, whatever is older than the restore is refused.
func forget(ctx context.Context, store *state.Store, view state.View, e *state.Entry) error {
	var n join.Node
	r := operate.Removal{Removed: time.Now().UTC()}
	if json.Unmarshal(e.Value, &n) == nil {
		r.Key = n.Key
	}
	name := strings.TrimPrefix(e.Key, join.NodesPrefix)
	if old, ok := view.Get(operate.RemovedPrefix + name); ok {
		var before operate.Removal
		if json.Unmarshal(old.Value, &before) != nil || before.Key != r.Key {
			r.Key = ""
		}
	}
	data, err := json.Marshal(r)
	if err != nil {
		return fmt.Errorf("forget node %s: %w", name, err)
	}
	_, err = store.Apply(ctx, state.Write{Key: operate.RemovedPrefix + name, Value: data, Expect: state.Any, TTL: int64(forgottenFor / time.Second)})
	if err == nil {
		_, err = store.Apply(ctx, state.Write{Key: e.Key, Delete: true, Expect: state.Any})
	}
	if err != nil {
		return fmt.Errorf("forget node %s: %w", name, err)
	}
	return nil
}
