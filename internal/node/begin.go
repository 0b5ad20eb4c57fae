package node

import (
	"context"
	"errors"
	"fmt"
	"io"
	"time"

	"github.com/podman-swarm/podman-swarm/internal/node/datadir"
	"github.com/podman-swarm/podman-swarm/internal/node/logs"
	"github.com/podman-swarm/podman-swarm/internal/node/operate"
	"github.com/podman-swarm/podman-swarm/internal/node/preflight"
	"github.com/podman-swarm/podman-swarm/internal/pki"
)

// firstTokenLife is how long the token that Init prints is good.
const firstTokenLife = 24 * time.Hour

// Init makes an empty data directory the first node of a new swarm, without running it, and prints
// the command that lets others join.
func Init(ctx context.Context, cfg Config, out io.Writer) error {
	if cfg.Join != "" {
		return fmt.Errorf("--join %s: init begins a swarm of its own: run podman-swarm join %s --token T to enter that one, or leave the setting out (flag, PODMAN_SWARM_JOIN, join in the file)", cfg.Join, cfg.Join)
	}
	h, keys, err := enlisted(ctx, cfg)
	if err != nil {
		return err
	}
	defer h.dir.Close() //nolint:errcheck // the lock ends with the process
	c, err := openCluster(ctx, h, keys)
	if err != nil {
		return err
	}
	defer c.close()
	if err := c.store.Ready(ctx); err != nil {
		return err
	}
	token, err := c.admitter.Tokens().Create(ctx, firstTokenLife, 0, "made by init")
	if err != nil {
		return err
	}
	_, err = fmt.Fprintf(out, "Swarm %s begins with node %s. On every machine that shall join it, within %d hours:\n\n  %s\n\n",
		keys.Cluster(), h.cfg.NodeName, int(firstTokenLife.Hours()), operate.JoinCommand(h.cfg.wireAddr(), token.String()))
	return err
}

// Join makes an empty data directory a node of the swarm that the node at addr belongs to, without
// running it. After an error nothing is left, here or there.
func Join(ctx context.Context, cfg Config, addr, token string, out io.Writer) error {
	if err := firstOnly(cfg.EncryptionKey, cfg.ServiceCIDR); err != nil {
		return err
	}
	cfg.Join, cfg.JoinToken = addr, token
	h, keys, err := enlisted(ctx, cfg)
	if err != nil {
		return err
	}
	_, err = fmt.Fprintf(out, "Node %s is admitted to swarm %s, pods get addresses of %s\n", h.cfg.NodeName, keys.Cluster(), h.cfg.PodCIDR)
	return errors.Join(err, h.dir.Close())
}

// enlisted makes a data directory that is none yet that of a node.
func enlisted(ctx context.Context, cfg Config) (*host, *pki.Authority, error) {
	fresh := !exists(cfg.DataDir)
	h, err := prepare(cfg, logs.New(cfg.LogLevel))
	if err != nil {
		return nil, nil, err
	}
	fail := func(err error) (*host, *pki.Authority, error) {
		err = errors.Join(err, h.dir.Close())
		if fresh && !h.dir.Joining() {
			err = errors.Join(err, datadir.Remove(h.cfg.DataDir, h.log))
		}
		return nil, nil, err
	}
	if err := h.whole(); err != nil {
		return fail(err)
	}
	if h.known || exists(h.dir.File("state")) {
		return fail(fmt.Errorf("%s is the data directory of node %s already: start its agent, or run podman-swarm reset --yes first, or use another --data-dir",
			h.cfg.DataDir, h.cfg.NodeName))
	}
	if err := preflight.PortsFree(ctx, h.cfg.APIAddr, h.cfg.BindAddr); err != nil {
		return fail(err)
	}
	keys, err := h.enlist(ctx)
	if err != nil {
		return fail(err)
	}
	return h, keys, nil
}
