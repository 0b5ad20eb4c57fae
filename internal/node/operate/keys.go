package operate

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"maps"
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
type keys struct {
	Config
	// limit is how long a phase waits for a node that does not answer.
	limit time.Duration
}

// KeysKey is where the swarm's keys are replicated, sealed.
const KeysKey = "/swarm/keys"

const (
	phaseTimeout = 2 * time.Minute // a machine boots in less
	phasePoll    = 250 * time.Millisecond
	// phaseQuiet is after which time the person who waits is told for whom.
	phaseQuiet = 5 * time.Second
)

// rotation is the replacement of one key.
type rotation struct {
	what  string
	phase func() pki.Phase
	inUse func() string          // tells the key in use from all others
	next  func() ([]byte, error) // the bundle of the next phase
	// grace is how long the old key is believed when the new one is in use everywhere.
	grace time.Duration
}

// RotateCA implements swarm.Keys. Pods learn of the new CA by their mounted files, which takes them up to a minute.
func (k keys) RotateCA(ctx context.Context, say swarm.Progress) error {
	inUse := func() string { hash := k.Keys.CAHash(); return string(hash[:]) }
	return k.rotate(ctx, say, rotation{"certificate authority", k.Keys.CAPhase, inUse, k.Keys.RotateCA, k.CAGrace})
}

// RotateGossipKey implements swarm.Keys.
func (k keys) RotateGossipKey(ctx context.Context, say swarm.Progress) error {
	inUse := func() string { return string(k.Keys.GossipKeys()[0]) }
	return k.rotate(ctx, say, rotation{"gossip key", k.Keys.GossipPhase, inUse, k.Keys.RotateGossipKey, 0})
}

// rotate goes through all phases that are left of a rotation, which may have been begun elsewhere and go on there:
// two who ask for one at the same time get one.
func (k keys) rotate(ctx context.Context, say swarm.Progress, r rotation) error {
	if away := k.away(); len(away) > 0 {
		return r.stopped(swarm.Refused("not reached: %s. A node that misses the change of the %s could not come back: bring it back first, or remove it with psctl node rm",
			strings.Join(away, ", "), r.what))
	}
	joined, before := r.phase() != pki.Steady, r.inUse()
	for {
		// Whoever stopped in this phase, here or elsewhere, did so because a node had not come so far.
		base := k.Keys.Bundle()
		err := k.agreed(ctx, say, r)
		if r.phase() == pki.Steady && (joined || r.inUse() != before) {
			if err != nil { // every node uses the new key, so that none is lost
				say("%s: replaced, though %v", r.what, err)
				return nil
			}
			say("%s: replaced on every node", r.what)
			return nil
		}
		if err == nil {
			err = k.wait(ctx, say, r)
		}
		if err == nil {
			err = k.step(ctx, base, r)
		}
		switch {
		case errors.Is(err, errOvertaken): // somebody else went on: look again how far it is
		case err != nil:
			err = r.stopped(err)
			k.Log.Warn("a rotation of keys stopped", "err", err) // the client may not hear it
			return err
		default:
			say("%s: every node is told (generation %d, next: %s)", r.what, k.Keys.Generation(), r.phase())
		}
	}
}

// wait lets the grace pass before the old key is dropped.
func (k keys) wait(ctx context.Context, say swarm.Progress, r rotation) error {
	changed := k.Keys.Changed()
	if r.phase() != pki.Used || r.grace == 0 {
		return nil
	}
	say("%s: the new one is in use; the old one is believed for %s more, until every pod knows (if interrupted: run the same command again)", r.what, r.grace)
	select {
	case <-time.After(r.grace):
	case <-changed:
		return errOvertaken
	case <-ctx.Done():
		return ctx.Err()
	}
	return k.agreed(ctx, say, r) // nodes may have gone, and others been admitted
}

// errOvertaken says that this node's keys are not those any more for which the next were meant.
var errOvertaken = errors.New("somebody else changed the keys")

// step publishes the phase after the one that has the keys of base.
func (k keys) step(ctx context.Context, base []byte, r rotation) error {
	bundle, err := r.next()
	if err != nil {
		return err
	}
	return k.publish(ctx, base, bundle)
}

// stopped adds to the reason why a rotation ends early what that means, if it had begun.
func (r rotation) stopped(err error) error {
	if errors.Is(err, context.Canceled) { // the client has gone, or this agent ends
		err = swarm.Unavailable("interrupted")
	}
	if r.phase() == pki.Steady {
		return err
	}
	return fmt.Errorf("%w. The rotation of the %s is unfinished, and the old one is believed as well as the new one: run the same command again to finish it", err, r.what)
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

// publish makes a bundle, the successor of base, the swarm's and this node's. Keys there that are no newer than
// this node's are in nobody's way: nodes put what they have there when they start.
func (k keys) publish(ctx context.Context, base, bundle []byte) error {
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
		if !bytes.Equal(k.Keys.Bundle(), base) {
			return errOvertaken
		}
		_, err := k.Store.Apply(ctx, w)
		if errors.Is(err, state.ErrConflict) {
			continue
		}
		if err != nil {
			return unavailable(err)
		}
		// By now somebody may have gone on from there.
		if err := k.Keys.Update(bundle); err != nil && !errors.Is(err, pki.ErrOlder) {
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

// agreed waits until every node uses this node's generation of keys, and a certificate of the CA that
// issues now. One that is down counts: it would come back with keys that nobody believes any more.
func (k keys) agreed(ctx context.Context, say swarm.Progress, r rotation) error {
	limited, cancel := context.WithTimeout(ctx, k.limit)
	defer cancel()
	quiet := time.After(phaseQuiet)
	var behind []string // when it was last found out
	for {
		now, err := k.behind(limited)
		if err == nil && len(now) == 0 {
			return nil
		}
		if err == nil {
			behind = now
		}
		select {
		case <-limited.Done():
			switch {
			case ctx.Err() != nil:
				return ctx.Err()
			case len(behind) == 0:
				return err
			}
			return fmt.Errorf("%s did not say within %s to have the present keys: bring it back, or remove it with psctl node rm",
				strings.Join(behind, ", "), k.limit)
		case <-quiet:
			if len(behind) > 0 {
				say("%s: waits for %s", r.what, strings.Join(behind, ", "))
			}
		case <-time.After(phasePoll):
		}
	}
}

// behind are the nodes that have not said that they have this node's keys. A newcomer counts from its
// reservation on: it is given the keys of that moment.
func (k keys) behind(ctx context.Context) ([]string, error) {
	want, have := words(k.Config), map[string]bool{}
	peers.AskAll(ctx, k.Peers, "words", "", func(_ peers.Member, w peers.Words) {
		have[w.Node] = w.Keys == want.Keys && w.Issuer == want.Issuer
	})
	// Who is admitted after this is admitted by a node that has just answered, and gets its keys.
	if err := k.Store.Barrier(ctx); err != nil {
		return nil, unavailable(err)
	}
	view, missing := k.Store.View(), map[string]bool{}
	view.Ascend(join.NodesPrefix, join.NodesPrefix+"\xff", func(e *state.Entry) bool {
		name := e.Key[len(join.NodesPrefix):]
		missing[name] = !have[name]
		return true
	})
	for _, m := range k.Peers.Members() { // one without a record has yet to write it, or is removed
		if _, removed := removalOf(view, m.Name); m.Alive() && !removed && !have[m.Name] {
			missing[m.Name] = true
		}
	}
	maps.DeleteFunc(missing, func(_ string, is bool) bool { return !is })
	return slices.Sorted(maps.Keys(missing)), nil
}
