package operate

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/podman-swarm/podman-swarm/internal/join"
	"github.com/podman-swarm/podman-swarm/internal/node/peers"
	"github.com/podman-swarm/podman-swarm/internal/pki"
	"github.com/podman-swarm/podman-swarm/internal/state"
	"github.com/podman-swarm/podman-swarm/internal/swarm"
)

// keys replaces what the swarm's trust rests on, phase by phase: every node believes the new key
// before any uses it, and every node uses it before the old one is dropped.
type keys struct{ Config }

// KeysKey is where the swarm's keys are replicated, sealed.
const KeysKey = "/swarm/keys"

const (
	phaseTimeout = 2 * time.Minute
	phasePoll    = 250 * time.Millisecond
)

// RotateCA implements swarm.Keys.
func (k keys) RotateCA(ctx context.Context, say swarm.Progress) error {
	return k.rotate(ctx, say, "certificate authority", k.Keys.CAPhase, func() ([]byte, error) {
		// Pods learn of the new one by their mounted files, which takes them up to a minute.
		if k.Keys.CAPhase() == pki.Used && k.CAGrace > 0 {
			say("certificate authority: the new one is in use; the old one is believed for %s more, until every pod knows", k.CAGrace)
			select {
			case <-time.After(k.CAGrace):
			case <-ctx.Done():
				return nil, ctx.Err()
			}
		}
		return k.Keys.RotateCA()
	})
}

// RotateGossipKey implements swarm.Keys.
func (k keys) RotateGossipKey(ctx context.Context, say swarm.Progress) error {
	return k.rotate(ctx, say, "gossip key", k.Keys.GossipPhase, k.Keys.RotateGossipKey)
}

// rotate goes through all phases that are left of a rotation, which may have been begun elsewhere.
func (k keys) rotate(ctx context.Context, say swarm.Progress, what string, phase func() pki.Phase, next func() ([]byte, error)) error {
	if away := k.away(); len(away) > 0 {
		return swarm.Refused("not reached: %s. A node that misses the change of the %s could not come back: bring it back first, or remove it with psctl node rm",
			strings.Join(away, ", "), what)
	}
	for {
		bundle, err := next()
		if err != nil {
			return err
		}
		if err := k.publish(ctx, bundle); err != nil {
			return err
		}
		say("%s: every node is told (generation %d, next: %s)", what, k.Keys.Generation(), phase())
		if err := k.agreed(ctx); err != nil {
			return err
		}
		if phase() == pki.Steady {
			say("%s: replaced on every node", what)
			return nil
		}
	}
}

// away are the nodes that belong to the swarm and do not answer.
func (k keys) away() []string {
	var out []string
	for _, n := range join.Nodes(k.Store.View()) {
		if m, ok := k.Peers.Member(n.Name); !ok || !m.Alive() {
			out = append(out, n.Name)
		}
	}
	return out
}

// publish makes a bundle, the successor of this node's keys, the swarm's and this node's. Keys there that are no
// newer than this node's are in nobody's way: nodes put what they have there when they start.
func (k keys) publish(ctx context.Context, bundle []byte) error {
	generation := k.Keys.Generation()
	for {
		if err := k.Store.Barrier(ctx); err != nil {
			return unavailable(err)
		}
		w := state.Write{Key: KeysKey, Value: k.Keys.Seal(bundle)}
		if there, ok := k.Store.View().Get(KeysKey); ok {
			if err := k.takeOver(there); err != nil {
				return err
			}
			w.Expect = there.ModRevision
		}
		if k.Keys.Generation() != generation {
			return swarm.Refused("somebody else changes the keys at this moment: try again")
		}
		_, err := k.Store.Apply(ctx, w)
		if errors.Is(err, state.ErrConflict) {
			continue
		}
		if err != nil {
			return unavailable(err)
		}
		if err := k.Keys.Update(bundle); err != nil {
			return err
		}
		return k.Peers.Gossip.SetKeys(k.Keys.GossipKeys())
	}
}

// takeOver makes the swarm's keys this node's, if they are newer.
func (k keys) takeOver(there *state.Entry) error {
	bundle, err := k.Keys.Unseal(there.Value)
	if err != nil {
		return fmt.Errorf("read %s: %w", KeysKey, err)
	}
	if err := k.Keys.Update(bundle); err != nil && !errors.Is(err, pki.ErrOlder) {
		return fmt.Errorf("take over the swarm's keys: %w", err)
	}
	return nil
}

// agreed waits until every living node uses this node's generation of keys, and a certificate of the
// CA that issues now.
func (k keys) agreed(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, phaseTimeout)
	defer cancel()
	for {
		want := words(k.Config)
		var behind []string
		silent := peers.AskAll(ctx, k.Peers, "words", "", func(m peers.Member, w peers.Words) {
			if w.Keys != want.Keys || w.Issuer != want.Issuer {
				behind = append(behind, m.Name)
			}
		})
		behind = append(behind, silent...)
		if len(behind) == 0 {
			return nil
		}
		select {
		case <-ctx.Done():
			slices.Sort(behind)
			return fmt.Errorf("%s did not take the new keys within %s: the old ones still hold; run the same command again when they answer",
				strings.Join(behind, ", "), phaseTimeout)
		case <-time.After(phasePoll):
		}
	}
}
