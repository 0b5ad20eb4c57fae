package operate

import (
	"bytes"
	"context"
	"fmt"
	"testing"

	"github.com/podman-swarm/podman-swarm/internal/node/nodetest"
	"github.com/podman-swarm/podman-swarm/internal/pki"
	"github.com/podman-swarm/podman-swarm/internal/state"
)

// Both rotations, asked of different nodes, while every node writes: no write fails.
func TestRotationsUnderLoad(t *testing.T) {
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
	if err := o.backends[1].Keys.RotateCA(t.Context(), o.say); err != nil {
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
