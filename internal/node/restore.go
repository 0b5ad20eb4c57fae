package node

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"time"

	"github.com/podman-swarm/podman-swarm/internal/backup"
	"github.com/podman-swarm/podman-swarm/internal/join"
	"github.com/podman-swarm/podman-swarm/internal/node/logs"
	"github.com/podman-swarm/podman-swarm/internal/node/operate"
	"github.com/podman-swarm/podman-swarm/internal/pki"
	"github.com/podman-swarm/podman-swarm/internal/state"
)

// Restore fills an empty data directory from a backup, without running it: the swarm begins again
// with this node, and the others join it anew.
func Restore(ctx context.Context, cfg Config, file string, out io.Writer) error {
	c, err := backup.Open(file)
	if err != nil {
		return err
	}
	h, err := prepare(cfg, logs.New(cfg.LogLevel))
	if err != nil {
		return err
	}
	defer h.dir.Close() //nolint:errcheck // the lock ends with the process
	for _, name := range []string{"pki", "state", memberFile, joiningFile} {
		if exists(h.dir.File(name)) {
			return fmt.Errorf("%s holds a node already: run podman-swarm reset --yes first, or use another --data-dir", h.cfg.DataDir)
		}
	}
	if err := h.restore(ctx, c); err != nil {
		for _, name := range []string{"pki", "state", memberFile} {
			err = errors.Join(err, os.RemoveAll(h.dir.File(name)))
		}
		return err
	}
	_, err = fmt.Fprintf(out, "Restored %s: swarm %s of %s, revision %d, %d objects. Start the agent here, remove the other nodes (psctl node rm NAME),\n"+
		"then let their machines join anew: podman-swarm token create\n", file, c.Info.Cluster, c.Info.Created.Format(time.RFC3339), c.Info.Revision, c.Info.Objects)
	return err
}

func (h *host) restore(ctx context.Context, c backup.Contents) error {
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

// forgetNodes strikes out who belonged to the swarm that the backup is of: each machine joins anew,
// with a key of its own, also under its old name.
func (h *host) forgetNodes(ctx context.Context) error {
	store, err := state.Open(ctx, state.Config{
		Dir: h.dir.File("state"), NodeID: h.cfg.NodeName, Addr: h.cfg.wireAddr(), Log: h.log.With("part", "state"),
	})
	if err != nil {
		return err
	}
	var errs []error
	for _, prefix := range []string{join.NodesPrefix, operate.RemovedPrefix} {
		store.View().Ascend(prefix, prefix+"\xff", func(e *state.Entry) bool {
			_, err := store.Apply(ctx, state.Write{Key: e.Key, Delete: true, Expect: state.Any})
			errs = append(errs, err)
			return true
		})
	}
	return errors.Join(errors.Join(errs...), store.Close())
}
