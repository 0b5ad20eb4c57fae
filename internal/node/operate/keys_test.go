package operate

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/podman-swarm/podman-swarm/internal/join"
	"github.com/podman-swarm/podman-swarm/internal/node/nodetest"
	"github.com/podman-swarm/podman-swarm/internal/pki"
	"github.com/podman-swarm/podman-swarm/internal/state"
	"github.com/podman-swarm/podman-swarm/internal/swarm"
)

// Both rotations, asked of different nodes, while every node writes: no write fails.
func TestRotationsUnderLoad(t *testing.T) {
	t.Parallel()
	o := operateOn(t, "n1", "n2", "n3")
	ctx, stop := context.WithCancel(t.Context())
	failed := make(chan error, len(o.nodes))
	for _, n := range o.nodes {
		go func() {
			var err error
			for i := 0; err == nil && ctx.Err() == nil; i++ {
				try, cancel := context.WithTimeout(context.WithoutCancel(ctx), nodetest.Patience)
				_, err = n.Store.Apply(try, state.Write{Key: "/load/" + n.Name, Value: fmt.Append(nil, i), Expect: state.Any})
				cancel()
			}
			failed <- err
		}()
	}
	ca, key := o.nodes[0].Keys.CAPEM(), o.nodes[0].Keys.GossipKeys()[0]
	slow := keys{o.configs[1], nodetest.Patience}
	slow.CAGrace = 8 * time.Second // in which nodes show each other their new certificates, so that no connection is cut
	if err := slow.RotateCA(t.Context(), o.say); err != nil {
		t.Fatalf("%v, said %q", err, o.said)
	}
	if err := o.backends[2].Keys.RotateGossipKey(t.Context(), o.say); err != nil {
		t.Fatalf("%v, said %q", err, o.said)
	}
	stop()
	for range o.nodes {
		if err := <-failed; err != nil {
			t.Errorf("a write failed: %v", err)
		}
	}
	for _, n := range o.nodes {
		if n.Keys.CAPhase() != pki.Steady || n.Keys.GossipPhase() != pki.Steady {
			t.Errorf("%s is in the middle of a rotation", n.Name)
		}
		if bytes.Equal(n.Keys.CAPEM(), ca) || bytes.Equal(n.Keys.GossipKeys()[0], key) || !bytes.Equal(n.Keys.CAPEM(), o.nodes[0].Keys.CAPEM()) {
			t.Errorf("%s has not the new keys", n.Name)
		}
	}
	// They still understand each other, over new connections too.
	o.nodes[2].Die()
	o.nodes[2].Start(t)
	for _, n := range o.nodes[:2] { // it knows nobody when it starts
		nodetest.Eventually(t, "a node that starts again meets "+n.Name, func() bool { m, _ := o.nodes[2].Peers.Member(n.Name); return m.Alive() })
	}
}

func TestRotationNeedsEveryNode(t *testing.T) {
	t.Parallel()
	o := operateOn(t, "n1", "n2", "n3")
	o.nodes[2].Die()
	nodetest.Eventually(t, "n3 is dead", func() bool { m, _ := o.nodes[0].Peers.Member("n3"); return !m.Alive() })
	before := o.nodes[0].Keys.Generation()
	wantError(t, o.backends[0].Keys.RotateCA(t.Context(), o.say), "not reached: n3")
	wantError(t, o.backends[0].Keys.RotateGossipKey(t.Context(), o.say), "not reached: n3")
	if now := o.nodes[0].Keys.Generation(); now != before {
		t.Errorf("generation %d became %d", before, now)
	}
}

// atLine returns a progress that does something once, at the first line with a text.
func (o *operated) atLine(text string, do func()) swarm.Progress {
	done := false
	return func(format string, args ...any) {
		o.say(format, args...)
		if !done && strings.Contains(fmt.Sprintf(format, args...), text) {
			done = true
			do()
		}
	}
}

// hurried are the keys of a node that gives others up soon, and lets some time pass before it drops a CA.
func (o *operated) hurried(i int) keys {
	cfg := o.configs[i]
	cfg.CAGrace = 3 * time.Second // longer than it takes to count as dead
	return keys{cfg, 6 * time.Second}
}

// A node that dies in the middle of a rotation stops it, and is not lost: whenever that was, it understands
// the others when it is back, and the rotation can be finished then.
func TestNodeDiesDuringRotation(t *testing.T) {
	t.Parallel()
	for name, tt := range map[string]struct {
		rotate func(keys, context.Context, swarm.Progress) error
		phase  func(keys) pki.Phase
		at     string
		stops  pki.Phase
	}{
		"gossip key, before it is used":       {keys.RotateGossipKey, func(k keys) pki.Phase { return k.Keys.GossipPhase() }, "next: believed", pki.Believed},
		"gossip key, before the old one goes": {keys.RotateGossipKey, func(k keys) pki.Phase { return k.Keys.GossipPhase() }, "next: used", pki.Used},
		"CA, during the grace":                {keys.RotateCA, func(k keys) pki.Phase { return k.Keys.CAPhase() }, "is believed for", pki.Used},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			o := operateOn(t, "n1", "n2", "n3")
			k := o.hurried(0)
			lineage := k.Store.Status().Lineage.ID
			err := tt.rotate(k, t.Context(), o.atLine(tt.at, o.nodes[2].Die))
			wantError(t, err, "n3 did not say")
			wantError(t, err, "run the same command again")
			if tt.phase(k) != tt.stops {
				t.Errorf("it stopped in phase %s, want %s; said %q", tt.phase(k), tt.stops, o.said)
			}
			nodetest.Eventually(t, "n3 is dead", func() bool { m, _ := k.Peers.Member("n3"); return !m.Alive() })
			err = tt.rotate(k, t.Context(), o.say)
			wantError(t, err, "not reached: n3")
			wantError(t, err, "is unfinished")

			o.nodes[2].Start(t)
			o.equip(t, o.nodes[2])
			nodetest.Eventually(t, "n2 sees n3 again", func() bool { m, _ := o.nodes[1].Peers.Member("n3"); return m.Alive() })
			if err := tt.rotate(keys{o.configs[1], nodetest.Patience}, t.Context(), o.say); err != nil {
				t.Fatalf("%v, said %q", err, o.said)
			}
			for _, n := range o.nodes {
				if n.Keys.Generation() != 4 || !bytes.Equal(n.Keys.Bundle(), k.Keys.Bundle()) || n.Store.Status().Lineage.ID != lineage {
					t.Errorf("%s has generation %d and lineage %s", n.Name, n.Keys.Generation(), n.Store.Status().Lineage.ID)
				}
			}
		})
	}
}

// Who is removed while a rotation waits for it is not waited for any more.
func TestNodeRemovedDuringRotation(t *testing.T) {
	t.Parallel()
	o := operateOn(t, "n1", "n2", "n3")
	k := o.hurried(0)
	k.limit = nodetest.Patience
	removed := make(chan error, 1)
	if err := k.RotateGossipKey(t.Context(), o.atLine("next: believed", func() {
		o.nodes[2].Die()
		go func() {
			for {
				changed := o.nodes[1].Peers.Changed()
				if m, _ := o.nodes[1].Peers.Member("n3"); !m.Alive() {
					removed <- o.backends[1].Nodes.Remove(t.Context(), "n3")
					return
				}
				<-changed
			}
		}()
	})); err != nil {
		t.Fatalf("%v, said %q", err, o.said)
	}
	if err := <-removed; err != nil || k.Keys.GossipPhase() != pki.Steady || k.Keys.Generation() != 4 {
		t.Errorf("%v; phase %s, generation %d", err, k.Keys.GossipPhase(), k.Keys.Generation())
	}
}

// A newcomer has the keys of the moment in which it was admitted: no key is dropped before it runs.
func TestNewcomerDuringRotation(t *testing.T) {
	t.Parallel()
	for _, confirmed := range []bool{true, false} {
		o := operateOn(t, "n1", "n2")
		k := keys{o.configs[0], time.Second}
		err := k.RotateGossipKey(t.Context(), o.atLine("next: believed", func() {
			record, err := json.Marshal(join.Node{Name: "n9", Address: "10.0.0.9:7946", Admitted: time.Now(), Confirmed: confirmed})
			if err != nil {
				t.Fatal(err)
			}
			o.nodes[1].Put(t, join.NodesPrefix+"n9", string(record))
		}))
		wantError(t, err, "n9 did not say")
		if k.Keys.GossipPhase() != pki.Believed {
			t.Errorf("it stopped in phase %s; said %q", k.Keys.GossipPhase(), o.said)
		}
		if err := o.backends[1].Nodes.Remove(t.Context(), "n9"); err != nil {
			t.Fatal(err)
		}
		k.limit = nodetest.Patience
		if err := k.RotateGossipKey(t.Context(), o.say); err != nil || k.Keys.Generation() != 4 {
			t.Errorf("%v, generation %d, said %q", err, k.Keys.Generation(), o.said)
		}
	}
}

// Two who ask for a rotation at the same time get one, whenever the second comes.
func TestTwoRotationsAtOnce(t *testing.T) {
	t.Parallel()
	o := operateOn(t, "n1", "n2")
	quiet := func(string, ...any) {}
	first, second := keys{o.configs[0], nodetest.Patience}, keys{o.configs[1], nodetest.Patience}
	both := make(chan error, 2)
	go func() { both <- first.RotateGossipKey(t.Context(), quiet) }()
	go func() { both <- second.RotateGossipKey(t.Context(), quiet) }()
	for range 2 {
		if err := <-both; err != nil {
			t.Error(err)
		}
	}
	if g := first.Keys.Generation(); g != 4 {
		t.Fatalf("generation %d after one rotation of the gossip key, want 4", g)
	}

	first.CAGrace, second.CAGrace = time.Second/10, 3*time.Second
	joined := make(chan error, 1)
	err := first.RotateCA(t.Context(), o.atLine("is believed for", func() {
		waits, once := make(chan struct{}), sync.Once{}
		go func() {
			joined <- second.RotateCA(t.Context(), func(format string, args ...any) {
				if strings.Contains(format, "is believed for") {
					once.Do(func() { close(waits) })
				}
			})
		}()
		<-waits
	}))
	if err := errors.Join(err, <-joined); err != nil {
		t.Error(err)
	}
	nodetest.Eventually(t, "both have the same keys", func() bool { return bytes.Equal(first.Keys.Bundle(), second.Keys.Bundle()) })
	if g := first.Keys.Generation(); g != 7 || first.Keys.CAPhase() != pki.Steady {
		t.Errorf("generation %d and phase %s after one rotation of each, want 7 and steady", g, first.Keys.CAPhase())
	}
}

// Who interrupts a rotation is told, and so is who asks for the status, until it is finished.
func TestInterruptedRotation(t *testing.T) {
	t.Parallel()
	o := operateOn(t, "n1", "n2")
	k := keys{o.configs[0], nodetest.Patience}
	k.CAGrace = time.Hour
	ctx, interrupt := context.WithCancel(t.Context())
	err := k.RotateCA(ctx, o.atLine("if interrupted: run the same command again", interrupt))
	wantError(t, err, "interrupted. The rotation of the certificate authority is unfinished, and the old one is believed as well as the new one: run the same command again")
	health := func() string {
		s, err := o.backends[1].Reader.Status(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		return s.Health
	}
	if h := health(); !strings.HasPrefix(h, "healthy: ") || !strings.Contains(h, "unless podman-swarm rotate-ca runs, run it again") {
		t.Errorf("health %q", h)
	}
	k.CAGrace = 0
	if err := k.RotateCA(t.Context(), o.say); err != nil {
		t.Error(err)
	}
	nodetest.Eventually(t, "the status tells of no rotation", func() bool { return !strings.Contains(health(), "rotate") })
}
