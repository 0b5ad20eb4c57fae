package machine

import (
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/podman-swarm/podman-swarm/internal/hlc"
	"github.com/podman-swarm/podman-swarm/internal/state/ancestry"
	"github.com/podman-swarm/podman-swarm/internal/state/journal"
)

// What is recorded has lost, however new it is, and is in the journal, also when the other side did not touch the
// key; what is withheld is not told at all; everything else competes, deletions too.
func TestHanding(t *testing.T) {
	a := machineOf("a")
	for i, key := range []string{"/untouched", "/both", "/same", "/deleted", "/withheld", "/other", "/gone"} {
		write(t, a, at(0)+hlc.Stamp(i), key, "old")
	}
	b := forked(t, a, "b")
	write(t, a, at(1), "/both", "a")
	write(t, a, at(1), "/same", "afar")
	write(t, a, at(1), "/deleted", "")
	for _, key := range []string{"/untouched", "/both", "/same", "/deleted", "/unknown", "/withheld"} {
		write(t, b, at(2), key, "afar")
	}
	write(t, b, at(2), "/other", "b")
	write(t, b, at(2), "/gone", "")
	since, _ := ancestry.Since(a.Lineage(), b.Lineage())
	for range 2 { // two replicas of b hand over
		c := b.Changes(since)
		c.Handing = func(key string, value []byte) journal.Handing {
			switch {
			case string(value) != "afar":
				return journal.HandOver
			case key == "/withheld":
				return journal.Withhold
			}
			return journal.Record
		}
		for _, e := range merges(c, a, b.Point(), 32) {
			if out := do(t, a, e); out.Err != nil {
				t.Fatal(out.Err)
			}
		}
	}
	got, lost := map[string]string{}, map[string]string{}
	a.View().Ascend("", "\xff", func(e *Entry) bool {
		if len(e.Value) < 10 {
			got[e.Key] = string(e.Value)
		}
		return true
	})
	for c, err := range Conflicts(a.View()) {
		if err != nil {
			t.Fatal(err)
		}
		lost[c.Key] = string(c.Kept.Value) + " stays, not " + string(c.Lost.Value)
	}
	if diff := cmp.Diff(map[string]string{"/untouched": "old", "/both": "a", "/same": "afar", "/withheld": "old", "/other": "b"}, got); diff != "" {
		t.Errorf("the state (-want +got):\n%s", diff)
	}
	if diff := cmp.Diff(map[string]string{"/untouched": "old stays, not afar", "/both": "a stays, not afar"}, lost); diff != "" {
		t.Errorf("the journal (-want +got):\n%s", diff)
	}
}

// A program that knows no lost entries reads chunks that have none.
func TestChunkVersion(t *testing.T) {
	m := machineOf("a")
	write(t, m, 1, "/k", "v")
	for handing, want := range map[journal.Handing]byte{journal.HandOver: 1, journal.Withhold: 1, journal.Record: 2} {
		c := m.Changes(Point{})
		c.Handing = func(string, []byte) journal.Handing { return handing }
		if chunk, _ := c.Next(1000); chunk[0] != want {
			t.Errorf("handing %d: version %d, want %d", handing, chunk[0], want)
		}
	}
}
