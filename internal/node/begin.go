package node

import (
	"context"
	"errors"
	"fmt"
	"io"
	"time"

	"github.com/podman-swarm/podman-swarm/internal/node/logs"
	"github.com/podman-swarm/podman-swarm/internal/node/operate"
	"github.com/podman-swarm/podman-swarm/internal/node/preflight"
	"github.com/podman-swarm/podman-swarm/internal/pki"
)

// firstTokenLife is how long the token that Init prints is good.
const firstTokenLife = 24 * time.Hour

// Init makes an empty data directory the first node of a new swarm, without running it, and prints
// the command that lets others join. After an error nothing is left.
func Init(ctx context.Context, cfg Config, out io.Writer) error {
	if cfg.Join != "" {
		return fmt.Errorf("--join %s: init begins a swarm of its own: run podman-swarm join %s --token T to enter that one, or leave the setting out (flag, PODMAN_SWARM_JOIN, join in the file)", cfg.Join, cfg.Join)
	}
	return making(ctx, cfg, "init", func(h *host) error { return h.begin(ctx, out) })
}

// begin makes a swarm with this node in it. Who is not told the token has none.
func (h *host) begin(ctx context.Context, out io.Writer) error {
	keys, err := h.enlisted(ctx)
	if err != nil {
		return err
	}
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
	var said string
	err := making(ctx, cfg, "join", func(h *host) error {
		keys, err := h.enlisted(ctx)
		if err == nil {
			said = fmt.Sprintf("Node %s is admitted to swarm %s, pods get addresses of %s\n", h.cfg.NodeName, keys.Cluster(), h.cfg.PodCIDR)
		}
		return err
	})
	if err != nil {
		return err
	}
	_, err = io.WriteString(out, said)
	return err
}

// making has do make a node of an empty data directory. After an error nothing is left that was not
// there before, except what the swarm that is joined may know this node by already.
func making(ctx context.Context, cfg Config, command string, do func(*host) error) error {
	h, err := prepare(cfg, logs.New(cfg.LogLevel))
	if err != nil {
		return err
	}
	err = do(h)
	switch {
	case err == nil:
		return h.dir.Close()
	case h.dir.Joining():
		if ctx.Err() != nil {
			err = fmt.Errorf("%s was interrupted, and the swarm may know this node already: run it again, or podman-swarm reset --yes", command)
		}
		return errors.Join(err, h.dir.Close())
	case ctx.Err() != nil:
		err = fmt.Errorf("%s was interrupted: nothing is left of it; to go on, run it again", command)
	}
	return errors.Join(err, h.undo())
}

// enlisted makes a data directory that is none yet that of a node.
func (h *host) enlisted(ctx context.Context) (*pki.Authority, error) {
	if err := h.whole(); err != nil {
		return nil, err
	}
	if h.known || exists(h.dir.File("state")) {
		return nil, fmt.Errorf("%s is the data directory of node %s already: start its agent, or run podman-swarm reset --yes first, or use another --data-dir",
			h.cfg.DataDir, h.cfg.NodeName)
	}
	if err := preflight.PortsFree(ctx, h.cfg.APIAddr, h.cfg.BindAddr); err != nil {
		return nil, err
	}
	return h.enlist(ctx)
}
