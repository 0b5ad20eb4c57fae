package operate

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"time"

	"github.com/podman-swarm/podman-swarm/internal/node/peers"
	"github.com/podman-swarm/podman-swarm/internal/pki"
	"github.com/podman-swarm/podman-swarm/internal/state"
)

// Sharing makes this node's keys those of the swarm: it takes over what is newer in the state, and puts
// there what is newer here.
type Sharing struct {
	Keys  *pki.Authority
	Store *state.Store
	Peers *peers.Peers
	Log   *slog.Logger
}

// Run blocks until ctx ends.
func (s Sharing) Run(ctx context.Context) error {
	if err := s.Store.Ready(ctx); err != nil {
		return withoutCanceled(err)
	}
	for ctx.Err() == nil {
		err := s.follow(ctx)
		if errors.Is(err, state.ErrCompacted) { // after a merge: there is another history to look at
			continue
		}
		if err != nil && ctx.Err() == nil {
			s.Log.Warn("share the swarm's keys", "err", err)
			select {
			case <-time.After(time.Second):
			case <-ctx.Done():
			}
		}
	}
	return nil
}

// follow looks at the keys now and after every change, until something goes wrong.
func (s Sharing) follow(ctx context.Context) error {
	w, err := s.Store.WatchPrefix(KeysKey, s.Store.Revision())
	if err != nil {
		return err
	}
	defer w.Close()
	for {
		if err := s.sync(ctx); err != nil {
			return err
		}
		if _, _, err := w.Next(ctx, nil); err != nil {
			return err
		}
	}
}

// sync compares the generations of the keys here and in the state; the newer wins.
func (s Sharing) sync(ctx context.Context) error {
	e, _ := s.Store.View().Get(KeysKey)
	if e != nil {
		bundle, err := s.Keys.Unseal(e.Value)
		if err != nil {
			return fmt.Errorf("read %s: %w", KeysKey, err)
		}
		err = s.Keys.Update(bundle)
		if err == nil {
			return s.Peers.Gossip.SetKeys(s.Keys.GossipKeys())
		}
		if !errors.Is(err, pki.ErrOlder) {
			return fmt.Errorf("take over the swarm's keys: %w", err)
		}
	}
	return s.publish(ctx, e)
}

// publish puts this node's keys into the state in the place of what is there.
func (s Sharing) publish(ctx context.Context, there *state.Entry) error {
	w := state.Write{Key: KeysKey, Value: s.Keys.Seal(s.Keys.Bundle())}
	if there != nil {
		w.Expect = there.ModRevision
	}
	if _, err := s.Store.Apply(ctx, w); err != nil && !errors.Is(err, state.ErrConflict) {
		return fmt.Errorf("write %s: %w", KeysKey, err)
	}
	return nil // after a conflict the watch tells
}
