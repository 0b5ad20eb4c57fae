package tombs

import (
	"time"

	"github.com/google/btree"

	"github.com/podman-swarm/podman-swarm/internal/hlc"
)

const (
	// Age is how long a deletion is remembered, by the stamps of writes: who comes back
	// later may bring the key back.
	Age = 7 * 24 * time.Hour
	// MaxStep is how much of that can pass at once. More between two writes is a clock that is wrong, and
	// one write of it must not make all deletions old; or nobody was there, and a deletion is
	// remembered for as much longer.
	MaxStep = time.Hour
	// Max bounds what deletions may cost in memory, about 15 MB.
	Max = 100_000
)

// Tomb remembers that a key was deleted. Tombs are immutable.
type Tomb struct {
	Key      string
	Stamp    hlc.Stamp
	Revision uint64 // of the deletion here
}

// Set is the deletions that a merge may have to know. What is kept follows from the calls alone, so
// it is the same on every replica.
type Set struct {
	// Horizon is the stamp before which deletions are forgotten. It is a part of the state: those of
	// replicas that were filled at different times must not differ.
	Horizon hlc.Stamp

	byKey  map[string]*Tomb
	byAge  *btree.BTreeG[*Tomb] // by stamp, then key; copy-on-write, for snapshots
	oldest hlc.Stamp            // not after the first of byAge
	limit  int
}

// New returns an empty set; the limit is Max but in tests.
func New(limit int) Set {
	return Set{
		byKey: map[string]*Tomb{}, limit: limit,
		byAge: btree.NewG(16, func(a, b *Tomb) bool {
			if a.Stamp != b.Stamp {
				return a.Stamp < b.Stamp
			}
			return a.Key < b.Key
		}),
	}
}

// Add remembers a deletion in place of any earlier one of the key.
func (x *Set) Add(t *Tomb) {
	x.Drop(t.Key)
	if len(x.byKey) == 0 || t.Stamp < x.oldest {
		x.oldest = t.Stamp
	}
	x.byKey[t.Key] = t
	x.byAge.ReplaceOrInsert(t)
	if len(x.byKey) > x.limit {
		x.pop()
	}
}

// Get returns the deletion of a key, nil: none is known.
func (x *Set) Get(key string) *Tomb { return x.byKey[key] }

// Image returns what is remembered now, in order of stamp and key.
func (x *Set) Image() *btree.BTreeG[*Tomb] { return x.byAge.Clone() }

// Drop forgets the deletion of a key.
func (x *Set) Drop(key string) {
	if len(x.byKey) == 0 {
		return
	}
	if t := x.byKey[key]; t != nil {
		delete(x.byKey, key)
		x.byAge.Delete(t)
	}
}

// pop forgets the oldest deletion.
func (x *Set) pop() {
	if t, ok := x.byAge.DeleteMin(); ok {
		delete(x.byKey, t.Key)
	}
}

// Pass tells that the newest stamp was one and is another now, and forgets what is too old. The
// horizon follows the newest stamp at a distance of Age. Where that leaps, the horizon moves by MaxStep,
// and goes on from there at the pace of the stamps: they stand still until the clocks have come to
// where the leap went. The distance stays greater from then on. Only one of up to MaxStep is made up
// for: such comes of stamps that another lineage brought, without a Pass.
func (x *Set) Pass(from, to hlc.Stamp) {
	if end := to.Back(Age); from == 0 || end.Back(MaxStep) <= x.Horizon {
		x.Horizon = end
	} else {
		x.Horizon += min(to-from, to-to.Back(MaxStep))
	}
	for len(x.byKey) > 0 && x.oldest < x.Horizon {
		first, _ := x.byAge.Min()
		if x.oldest = first.Stamp; x.oldest < x.Horizon {
			x.pop()
		}
	}
}
