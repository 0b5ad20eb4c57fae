package machine

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/fnv"
	"time"

	"github.com/podman-swarm/podman-swarm/internal/state/ancestry"
	"github.com/podman-swarm/podman-swarm/internal/state/codec"
	"github.com/podman-swarm/podman-swarm/internal/state/journal"
	"github.com/podman-swarm/podman-swarm/internal/state/tombs"
)

// Errors of merges.
var (
	// ErrLineage says that a merge was meant for another lineage than the present one: begin anew.
	ErrLineage = errors.New("state: the lineage has changed")
	// ErrUnrelated says that two histories have nothing in common, so none can be merged.
	ErrUnrelated = errors.New("state: the lineages have no common ancestor")
)

// Merge is a part of another lineage's changes as it stands in the replicated log:
//
//	byte    format version, byte operation
//	uvarint length of To, then To
//	uvarint length of From, then From
//	uvarint newest revision
//	uint64  stamp, uvarint revision of Settled
//	uvarint now, in Unix seconds
//	byte    1: final
//	...     the chunk, to the end
type Merge struct {
	To   string  // the lineage it is for; another one refuses it
	From Lineage // the one that hands over
	// Newest is the newest revision of the lineage that hands over, where it does so.
	Newest uint64
	// Settled is the point up to which all its replicas have the same history: what was known to
	// be committed. Later changes are looked at again when another replica hands them over.
	Settled Point
	// Now is the wall clock of who proposes the merge, in Unix seconds: it decides what has
	// expired, and when conflicts do.
	Now int64
	// Final says that every change up to Settled has been applied, with this chunk.
	Final bool
	Chunk []byte // of Changes
}

// Counts says what became of the changes of a merge.
type Counts struct {
	Merged    int // taken over
	Kept      int // the present state is newer
	Skipped   int // known already, the same here, or expired
	Conflicts int // written to the journal
}

// isMerge tells a merge from a write.
func isMerge(b []byte) bool { return len(b) > 1 && b[0] >= mergeVersion && b[1] == opMerge }

// Encode returns the merge as a log entry, which is also how replicas send it to each other.
func (m *Merge) Encode() []byte {
	b := codec.AppendString([]byte{mergeVersion, opMerge}, m.To)
	from := m.From.Append(nil)
	b = append(binary.AppendUvarint(b, uint64(len(from))), from...)
	b = binary.AppendUvarint(b, m.Newest)
	b = ancestry.AppendPoint(b, m.Settled)
	b = binary.AppendUvarint(b, uint64(m.Now))
	final := byte(0)
	if m.Final {
		final = 1
	}
	return append(append(b, final), m.Chunk...)
}

// DecodeMerge reads a merge; the chunk, which is not looked into, shares memory with b.
func DecodeMerge(b []byte) (*Merge, error) {
	if !isMerge(b) {
		return nil, errBadCommand
	}
	if err := checkCommand(b[0]); err != nil {
		return nil, err
	}
	r := codec.Reader{B: b[2:]}
	m := &Merge{To: string(r.Bytes(ancestry.MaxID))}
	from := r.Bytes(ancestry.MaxLineage)
	m.Newest, m.Settled, m.Now = r.Uvarint(), ancestry.ReadPoint(&r), int64(r.Uvarint())
	if r.Bad || len(r.B) == 0 || r.B[0] > 1 || m.Now < 0 || m.Newest > maxRevision || m.Settled.Revision > m.Newest {
		return nil, errBadCommand
	}
	m.Final, m.Chunk = r.B[0] == 1, r.B[1:]
	var err error
	if m.From, err = ancestry.DecodeLineage(from); err != nil {
		return nil, fmt.Errorf("%w: %w", errBadCommand, err)
	}
	return m, nil
}

// merging is one merge being applied. The result for a key is the greatest of its states by
// change.compare, so the order of merges and their repetition do not matter. Lost entries do not compete.
type merging struct {
	f *Machine
	m *Merge
	// since is the revision of theirs up to which everything is here, known the revision of ours
	// up to which they know everything.
	since, known uint64
	theirs       ancestry.Merged  // what is noted about them
	taken        *ancestry.Merged // what they noted about us
	counts       Counts
	home         uint64 // the newest revision that is noted as theirs; 0: none yet
}

// merge applies a merge, all of it or nothing.
func (f *Machine) merge(m *Merge) *Outcome {
	refused := func(err error) *Outcome {
		return &Outcome{Result: Result{Revision: f.rev.Load()}, Err: fmt.Errorf("merge %s into %s: %w", m.From.ID, m.To, err)}
	}
	if m.To != f.lineage.ID || m.From.ID == m.To {
		return refused(ErrLineage)
	}
	since, related := ancestry.Since(f.lineage, m.From)
	known, _ := ancestry.Since(m.From, f.lineage)
	if !related {
		return refused(ErrUnrelated)
	}
	changes, err := decodeChunk(m.Chunk)
	if err != nil {
		return refused(err)
	}
	g := merging{
		f: f, m: m, since: since.Revision, known: known.Revision,
		theirs: f.lineage.Of(m.From.ID).Clone(m.From.ID), taken: m.From.Of(m.To),
	}
	// The room for the last step is there before the first: a change takes two revisions at most.
	least := max(f.rev.Load()+2*uint64(len(changes)), m.Newest)
	end, err := jump(least, m.stride(least))
	if errors.Is(err, ErrExhausted) {
		end, err = jump(least, 0)
	}
	if err != nil {
		return refused(err)
	}
	for i := range changes {
		g.change(&changes[i])
	}
	g.note(end)
	return &Outcome{Result: Result{Revision: f.rev.Load()}, Merged: &g.counts}
}

// maxStride is how many steps a merge leaves out at most.
const maxStride = 1 << 20

// stride is how many steps this merge leaves out: the same on all replicas of a lineage, and another
// number elsewhere. Parts of the lineage that hands over may go on and merge a third one meanwhile; both
// would begin at the next step after its newest revision.
func (m *Merge) stride(least uint64) uint64 {
	h := fnv.New64a()
	_, _ = h.Write([]byte(m.To + " " + m.From.ID)) // never fails
	_, _ = h.Write(binary.BigEndian.AppendUint64(nil, least))
	return h.Sum64() % maxStride
}

// note remembers what was merged. The first time that something new of a lineage is complete,
// revisions go on beyond those of both, and whoever watches begins anew: clients of the other
// lineage cannot take one of its revisions for one of ours.
func (g *merging) note(end uint64) {
	f, m := g.f, g.m
	if m.Final {
		leap := m.Newest > g.theirs.Newest
		if m.Settled.Revision > g.theirs.Revision {
			g.theirs.Point = m.Settled
		}
		g.theirs.Newest = max(g.theirs.Newest, m.Newest)
		f.lineage = f.lineage.With(g.theirs).Inherit(m.From)
		if leap {
			f.leap(end)
		}
		return
	}
	f.lineage = f.lineage.With(g.theirs)
}

// ours is the present state of a key; nil: nothing is known of it.
func (f *Machine) ours(key string) (*change, *Entry) {
	if it, ok := f.live.Get(item{key: key}); ok {
		e := it.entry
		return &change{key: e.Key, rev: e.ModRevision, stamp: e.Stamp, expires: e.Expires, value: e.Value}, e
	}
	if t := f.tombs.Get(key); t != nil {
		return &change{key: t.Key, rev: t.Revision, stamp: t.Stamp, deleted: true}, nil
	}
	return nil, nil
}

// compare orders the states of a key: the newer stamp wins. Equal stamps are one write, or two of
// two clocks that any rule may decide between, as long as it is the same everywhere.
func (x *change) compare(y *change) int {
	switch {
	case x.stamp != y.stamp:
		return order(x.stamp > y.stamp)
	case x.deleted != y.deleted:
		return order(y.deleted)
	case x.expires != y.expires:
		return order(x.expires > y.expires)
	}
	return bytes.Compare(x.value, y.value)
}

func order(greater bool) int {
	if greater {
		return 1
	}
	return -1
}

// same reports whether two states mean the same to a reader.
func (x *change) same(y *change) bool {
	return x.deleted == y.deleted && bytes.Equal(x.value, y.value)
}

func (x *change) expired(now int64) bool { return x.expires > 0 && x.expires <= now }

// change applies one change.
func (g *merging) change(x *change) {
	f := g.f
	f.observe(x.stamp) // no deletion gets older by it: it says how late it is there, not here
	ours, cur := f.ours(x.key)
	won := 1
	if ours != nil {
		won = x.compare(ours)
	}
	if x.rev <= g.since || g.taken.Holds(x.rev) || x.expired(g.m.Now) || won == 0 || x.lost && (ours == nil || ours.deleted) {
		g.counts.Skipped++
		return
	}
	// Did we do something they do not know of? Theirs is news to us by what was just asked.
	both := ours != nil && (x.lost || ours.rev > g.known && !g.theirs.Holds(ours.rev)) && !x.same(ours)
	if won < 0 || x.lost {
		g.counts.Kept++
		if both {
			g.journal(ours, f.lineage, x, g.m.From)
		}
		return
	}
	g.counts.Merged++
	g.take(x, cur)
	if both {
		g.journal(x, g.m.From, ours, f.lineage)
	}
}

// take makes a change of theirs the present state.
func (g *merging) take(x *change, cur *Entry) {
	// What replicas of theirs may not agree on is not known to be theirs.
	settled := x.rev <= g.m.Settled.Revision
	switch {
	case !x.deleted:
		// The chunk would live as long as the last of its values.
		g.f.put(&Entry{Key: x.key, Value: bytes.Clone(x.value), Stamp: x.stamp, Expires: x.expires}, cur)
	case cur != nil:
		g.f.remove(cur, x.stamp)
	default:
		g.bury(x, settled)
		return
	}
	if settled {
		g.home = g.f.rev.Load()
		g.theirs.Note(g.home)
	}
}

// bury remembers a deletion of what is not here. Nobody can see it happen, so it has no event; it
// shares the revision of another change of theirs, or gets one without event, which history does
// not hold.
func (g *merging) bury(x *change, settled bool) {
	f, rev := g.f, g.home
	if rev == 0 || !settled {
		rev = f.rev.Load() + 1
		f.leap(rev)
		if settled {
			g.home = rev
			g.theirs.Note(rev)
		}
	}
	f.tombs.Add(&tombs.Tomb{Key: x.key, Stamp: x.stamp, Revision: rev})
}

// journal keeps a value that was overwritten, once.
func (g *merging) journal(kept *change, by Lineage, lost *change, of Lineage) {
	f := g.f
	if journal.Derived(lost.key) || lost.expired(g.m.Now) {
		return
	}
	c := Conflict{Key: lost.key, At: g.m.Now, Kept: side(kept, by), Lost: side(lost, of)}
	key := ConflictPrefix + journal.ID(c.Key, c.Lost)
	if there, _ := f.ours(key); there != nil {
		return
	}
	// Its stamp is that of the newer write, not of now: a decision about it is newer everywhere.
	g.counts.Conflicts++
	f.put(&Entry{Key: key, Value: c.Encode(), Stamp: max(kept.stamp, lost.stamp), Expires: g.m.Now + int64(journal.Age/time.Second)}, nil)
}

func side(x *change, l Lineage) Side {
	return Side{Lineage: l.ID, Born: l.Born, Stamp: x.stamp, Deleted: x.deleted, Expires: x.expires, Value: x.value}
}
