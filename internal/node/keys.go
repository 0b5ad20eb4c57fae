package node

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/podman-swarm/podman-swarm/internal/node/operate"
	"github.com/podman-swarm/podman-swarm/internal/pki"
	"github.com/podman-swarm/podman-swarm/internal/state"
)

// shareKeys makes this node's keys those of the swarm until ctx ends: it takes over what is newer
// in the state, and puts there what is newer here.
func (c *cluster) shareKeys(ctx context.Context) error {
	if err := c.store.Ready(ctx); err != nil {
		return withoutCanceled(err)
	}
	for ctx.Err() == nil {
		if err := c.followKeys(ctx); err != nil && ctx.Err() == nil {
			c.log.Warn("share the swarm's keys", "err", err)
			select {
			case <-time.After(time.Second):
			case <-ctx.Done():
			}
		}
	}
	return nil
}

// followKeys looks at the keys now and after every change, until something goes wrong.
func (c *cluster) followKeys(ctx context.Context) error {
	w, err := c.store.WatchPrefix(operate.KeysKey, c.store.Revision())
	if err != nil {
		return err
	}
	defer w.Close()
	for {
		if err := c.syncKeys(ctx); err != nil {
			return err
		}
		if _, _, err := w.Next(ctx, nil); err != nil {
			return err
		}
	}
}

// syncKeys compares the generations of the keys here and in the state; the newer wins.
func (c *cluster) syncKeys(ctx context.Context) error {
	e, _ := c.store.View().Get(operate.KeysKey)
	if e != nil {
		bundle, err := c.keys.Unseal(e.Value)
		if err != nil {
			return fmt.Errorf("read %s: %w", operate.KeysKey, err)
		}
		err = c.keys.Update(bundle)
		if err == nil {
			return c.peers.Gossip.SetKeys(c.keys.GossipKeys())
		}
		if !errors.Is(err, pki.ErrOlder) {
			return fmt.Errorf("take over the swarm's keys: %w", err)
		}
	}
	return c.publishKeys(ctx, e)
}

// publishKeys puts this node's keys into the state in the place of what is there.
func (c *cluster) publishKeys(ctx context.Context, there *state.Entry) error {
	w := state.Write{Key: operate.KeysKey, Value: c.keys.Seal(c.keys.Bundle())}
	if there != nil {
		w.Expect = there.ModRevision
	}
	if _, err := c.store.Apply(ctx, w); err != nil && !errors.Is(err, state.ErrConflict) {
		return fmt.Errorf("write %s: %w", operate.KeysKey, err)
	}
	return nil // after a conflict the watch tells
}
