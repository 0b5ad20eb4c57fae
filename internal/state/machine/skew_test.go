package machine

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"maps"
	"slices"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/podman-swarm/podman-swarm/internal/hlc"
	"github.com/podman-swarm/podman-swarm/internal/state/tombs"
)

const day = 24 * time.Hour

// at is the stamp of a clock, so long after the tests' beginning.
func at(d time.Duration) hlc.Stamp { return hlc.At(time.Unix(1_800_000_000, 0).Add(d)) }

// One write of a clock that is fast makes no deletion old: neither one of the lineage that takes over
// the write, nor one that is handed over beside it.
func TestFastClockDoesNotForgetDeletions(t *testing.T) {
	for _, skew := range []time.Duration{time.Hour, 8 * day, 1000 * day} {
		w := machineOf("w")
		write(t, w, at(time.Second), "/ours", "old")
		write(t, w, at(time.Second), "/theirs", "old")
		l := forked(t, w, "l")
		write(t, l, at(2*time.Second), "/ours", "changed")
		write(t, l, at(3*time.Second), "/theirs", "")
		write(t, w, at(4*time.Second), "/ours", "")
		write(t, l, at(skew), "/a", "x")
		write(t, l, at(5*time.Second), "/b", "x")
		n := mergeAll(t, l, w)
		for _, key := range []string{"/ours", "/theirs"} {
			if e, there := w.View().Get(key); there {
				t.Errorf("skew %v: %s is %q again, merged %+v", skew, key, e.Value, n)
			}
		}
		if len(losses(t, w)) != 1 {
			t.Errorf("skew %v: the journal holds %v, want what /ours was changed to", skew, losses(t, w))
		}
	}
}

// skewed is a history that leaders with different clocks write, on several replicas.
type skewed struct {
	replicas []*Machine
	now      time.Duration // the right time
	keys     int
	live     []string
	gone     map[string]time.Duration // deletions, and when they were made
}

func (x *skewed) do(t *rapid.T, entry []byte) {
	for _, f := range x.replicas {
		if out := do(t, f, entry); out.Err != nil {
			t.Fatal(out.Err)
		}
	}
}

// write is a change that a leader of a clock makes: a new key, or the deletion of one.
func (x *skewed) write(t *rapid.T, skew time.Duration, create bool) {
	c := Command{Stamp: at(x.now + skew), Expect: Any, Delete: !create && len(x.live) > 0}
	if c.Delete {
		c.Key, x.live = x.live[0], x.live[1:]
		x.gone[c.Key] = x.now
	} else {
		x.keys++
		c.Key = fmt.Sprintf("/k%d", x.keys)
		x.live = append(x.live, c.Key)
	}
	x.do(t, c.Encode())
}

// merge lets another lineage, whose clock is fast, delete a key and hand that over.
func (x *skewed) merge(t *rapid.T, skew time.Duration) {
	x.keys++
	l := forked(t, x.replicas[0], fmt.Sprintf("l%d", x.keys))
	write(t, l, at(x.now+skew), fmt.Sprintf("/k%d", x.keys), "x")
	x.live = append(x.live, fmt.Sprintf("/k%d", x.keys))
	key := x.live[0]
	x.live = x.live[1:]
	if _, ok := l.View().Get(key); ok {
		write(t, l, at(x.now+skew), key, "")
		x.gone[key] = x.now
	}
	for _, e := range handOver(t, l, x.replicas[0], l.Point(), 64) {
		x.do(t, e)
	}
}

// restore adds a replica that was filled with a snapshot.
func (x *skewed) restore(t *rapid.T) {
	from := rapid.IntRange(0, len(x.replicas)-1).Draw(t, "replica")
	if len(x.replicas) < 4 {
		x.replicas = append(x.replicas, copyOf(t, x.replicas[from]))
	}
}

// remembers checks that every deletion of the last while is known, and that all replicas are one.
func (x *skewed) remembers(t *rapid.T, age time.Duration) {
	first := x.replicas[0]
	for _, key := range slices.Sorted(maps.Keys(x.gone)) {
		if old := x.now - x.gone[key]; old < age && first.tombs.Get(key) == nil {
			t.Fatalf("the deletion of %s is forgotten after %v", key, old)
		}
	}
	want := snapshotOf(t, first)
	for i, f := range x.replicas[1:] {
		if !bytes.Equal(want, snapshotOf(t, f)) {
			t.Fatalf("replica %d differs: horizon %v, the first's is %v", i+1, f.tombs.Horizon, first.tombs.Horizon)
		}
	}
}

func newSkewed(t *rapid.T) *skewed {
	x := &skewed{replicas: []*Machine{machineOf("a")}, gone: map[string]time.Duration{}}
	for range 3 {
		x.write(t, 0, true)
	}
	return x
}

// Whatever the leaders' clocks do, and those of lineages that are merged: a deletion is remembered for
// seven days of the right time, less what a leap counts, and replicas agree on what is.
func TestDeletionsAreRememberedWhateverClocksDo(t *testing.T) {
	skews := []time.Duration{0, -3 * day, 4 * time.Minute, 90 * time.Minute, 8 * day, 300 * day}
	const leap = 2 * tombs.MaxStep
	rapid.Check(t, func(t *rapid.T) {
		x := newSkewed(t)
		for range rapid.IntRange(1, 150).Draw(t, "steps") {
			x.now += rapid.SampledFrom([]time.Duration{time.Second, 10 * time.Minute, 50 * time.Minute, 5 * time.Hour, 2 * day}).Draw(t, "later")
			switch rapid.IntRange(0, 9).Draw(t, "what") {
			case 0:
				x.merge(t, rapid.SampledFrom(skews[2:]).Draw(t, "foreign skew"))
			case 1:
				x.restore(t)
			default:
				x.write(t, rapid.SampledFrom(skews).Draw(t, "skew"), rapid.Bool().Draw(t, "create"))
			}
			x.remembers(t, tombs.Age-time.Duration(len(skews))*leap)
		}
	})
}

// With clocks that are about right, deletions are forgotten when they always were, and snapshots are
// what a former version reads.
func TestRightClocksForgetAsBefore(t *testing.T) {
	skews := []time.Duration{0, -3 * time.Minute, 4 * time.Minute}
	rapid.Check(t, func(t *rapid.T) {
		x := newSkewed(t)
		for range rapid.IntRange(1, 400).Draw(t, "steps") {
			x.now += rapid.SampledFrom([]time.Duration{time.Second, 40 * time.Minute}).Draw(t, "later")
			if rapid.IntRange(0, 19).Draw(t, "what") == 0 {
				x.merge(t, rapid.SampledFrom(skews[1:]).Draw(t, "foreign skew"))
			}
			x.write(t, rapid.SampledFrom(skews).Draw(t, "skew"), rapid.Bool().Draw(t, "create"))
			f := x.replicas[0]
			if f.tombs.Horizon != f.stamp.Back(tombs.Age) || snapshotOf(t, f)[len(snapshotMagic)] != 2 {
				t.Fatalf("horizon %v, newest %v", f.tombs.Horizon, f.stamp)
			}
		}
	})
}

// A horizon that a leap left behind is in the snapshot, and only then another version is needed.
func TestSnapshotHoldsTheHorizon(t *testing.T) {
	f := machineOf("a")
	write(t, f, at(0), "/k", "v")
	write(t, f, at(time.Minute), "/k", "")
	if b := snapshotOf(t, f); b[len(snapshotMagic)] != 2 {
		t.Errorf("version %d without need", b[len(snapshotMagic)])
	}
	write(t, f, at(8*day), "/fast", "v")
	b := snapshotOf(t, f)
	c := copyOf(t, f)
	if b[len(snapshotMagic)] != snapshotVersion || c.tombs.Horizon != f.tombs.Horizon || !bytes.Equal(b, snapshotOf(t, c)) {
		t.Errorf("version %d, horizon %v reads back as %v", b[len(snapshotMagic)], f.tombs.Horizon, c.tombs.Horizon)
	}
	// One that version 2 says, and one that is ahead of it, are none that was written.
	said := binary.BigEndian.AppendUint64(nil, uint64(f.tombs.Horizon))
	for _, wrong := range []hlc.Stamp{f.stamp.Back(tombs.Age), f.stamp} {
		bad := bytes.Replace(b, said, binary.BigEndian.AppendUint64(nil, uint64(wrong)), 1)
		if err := copyOf(t, f).Restore(io.NopCloser(bytes.NewReader(bad))); !errors.Is(err, errBadSnapshot) {
			t.Errorf("horizon %v, newest %v: %v", wrong, f.stamp, err)
		}
	}
	for i := range 20 * 24 {
		write(t, c, at(8*day+time.Duration(i+1)*time.Hour), "/fast", "v")
	}
	if c.tombs.Get("/k") != nil {
		t.Error("a deletion is remembered for ever")
	}
}
