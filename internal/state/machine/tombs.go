package machine

import (
	"time"

	"github.com/google/btree"

	"github.com/podman-swarm/podman-swarm/internal/hlc"
)

const (
	// tombstoneAge is how long a deletion is remembered, by the stamps of writes: who comes back
	// later may bring the key back.
	tombstoneAge = 7 * 24 * time.Hour
	// maxTombstones bounds what deletions may cost in memory, about 15 MB.
	maxTombstones = 100_000
)

// tomb remembers that a key was deleted. Tombs are immutable.
type tomb struct {
	key   string
	stamp hlc.Stamp
	rev   uint64 // of the deletion here
}

// tombs are the deletions that a merge may have to know. What is kept follows from the commands
// alone, so it is the same on every replica.
type tombs struct {
	byKey  map[string]*tomb
	byAge  *btree.BTreeG[*tomb] // by stamp, then key; copy-on-write, for snapshots
	oldest hlc.Stamp            // not after the first of byAge
	limit  int
}

func newTombs() tombs {
	return tombs{
		byKey: map[string]*tomb{}, limit: maxTombstones,
		byAge: btree.NewG(degree, func(a, b *tomb) bool {
			if a.stamp != b.stamp {
				return a.stamp < b.stamp
			}
			return a.key < b.key
		}),
	}
}

// add remembers a deletion in place of any earlier one of the key.
func (x *tombs) add(t *tomb) {
	x.drop(t.key)
	if len(x.byKey) == 0 || t.stamp < x.oldest {
		x.oldest = t.stamp
	}
	x.byKey[t.key] = t
	x.byAge.ReplaceOrInsert(t)
	if len(x.byKey) > x.limit {
		x.pop()
	}
}

// drop forgets the deletion of a key.
func (x *tombs) drop(key string) {
	if len(x.byKey) == 0 {
		return
	}
	if t := x.byKey[key]; t != nil {
		delete(x.byKey, key)
		x.byAge.Delete(t)
	}
}

// pop forgets the oldest deletion.
func (x *tombs) pop() {
	if t, ok := x.byAge.DeleteMin(); ok {
		delete(x.byKey, t.key)
	}
}

// expire forgets what is too old once there is a write of a stamp.
func (x *tombs) expire(newest hlc.Stamp) {
	if len(x.byKey) == 0 || !tooOld(x.oldest, newest) {
		return
	}
	for {
		first, ok := x.byAge.Min()
		if !ok {
			return
		}
		if x.oldest = first.stamp; !tooOld(first.stamp, newest) {
			return
		}
		x.pop()
	}
}

func tooOld(s, newest hlc.Stamp) bool { return s < newest.Back(tombstoneAge) }
