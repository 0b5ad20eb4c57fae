package ancestry

import (
	"encoding/binary"
	"errors"
	"slices"

	"github.com/podman-swarm/podman-swarm/internal/hlc"
	"github.com/podman-swarm/podman-swarm/internal/state/codec"
)

// Point is a moment of a history. Both halves move together; what lies before or after a point is
// told by the revision, since a merged write keeps its old stamp but gets a new revision.
type Point struct {
	Stamp    hlc.Stamp
	Revision uint64
}

// earlier returns the point that lies first in a history that holds both.
func earlier(a, b Point) Point {
	if b.Revision < a.Revision {
		return b
	}
	return a
}

// Lineage names one unbroken history of the state and says where it comes from. Lineages are values:
// their slices are replaced, never changed.
type Lineage struct {
	ID      string
	Born    hlc.Stamp
	Parents []Ancestor // newest first
	Merged  []Merged   // in the order of first contact
}

// Ancestor is a lineage and the point up to which its history is also that of its descendant.
// Revisions up to there mean the same in both.
type Ancestor struct {
	ID string
	Point
}

// Merged is what a lineage has taken over from another one.
type Merged struct {
	ID string
	// Point of the other's history up to which everything of it is here; zero before its first
	// hand-over has ended.
	Point
	// Newest is the other's newest revision then, which is later than Point where replicas of the
	// other may have differed.
	Newest uint64
	// here are the revisions under which its writes were taken over, ascending: what the other
	// knows though it came about here. Only a bounded number is kept; what is forgotten may make
	// the journal hold a conflict that was none.
	here []span
}

type span struct{ first, last uint64 }

const (
	// MaxAncestors bounds a lineage. Who left the history that many forks ago is a stranger.
	MaxAncestors = 1024
	maxSpans     = 256
	// MaxID bounds a lineage's name, in bytes.
	MaxID = 64
	// MaxLineage bounds an encoded lineage.
	MaxLineage = 8 << 20
)

// always is later than every point.
func always() Point { return Point{^hlc.Stamp(0), ^uint64(0)} }

// chain is the lineage and its ancestors, newest first.
func (l Lineage) chain() []Ancestor {
	return append([]Ancestor{{ID: l.ID, Point: always()}}, l.Parents...)
}

// Common returns the point at which the histories of two lineages parted: up to it they are one.
// False: they are strangers. One lineage is in common with itself for ever.
func Common(a, b Lineage) (Point, bool) {
	other := b.chain()
	for _, x := range a.chain() {
		if i := slices.IndexFunc(other, func(y Ancestor) bool { return y.ID == x.ID }); i >= 0 {
			return earlier(x.Point, other[i].Point), true
		}
	}
	return Point{}, false
}

// Since returns the point of from's history up to which a lineage knows it: where they parted, or
// later when it has merged some of it since. What comes after is to be handed over.
func Since(to, from Lineage) (Point, bool) {
	known, ok := Common(to, from)
	for _, x := range from.chain() {
		if m := to.Of(x.ID); m != nil {
			if p := earlier(m.Point, x.Point); p.Revision > known.Revision {
				known = p
			}
		}
	}
	return known, ok
}

// Older orders lineages by their birth.
func Older(a, b Lineage) bool {
	if a.Born != b.Born {
		return a.Born < b.Born
	}
	return a.ID < b.ID
}

// Of returns what was merged of another lineage, nil: nothing.
func (l Lineage) Of(id string) *Merged {
	for i := range l.Merged {
		if l.Merged[i].ID == id {
			return &l.Merged[i]
		}
	}
	return nil
}

// With returns the lineage with another record of what was merged.
func (l Lineage) With(m Merged) Lineage {
	if i := slices.IndexFunc(l.Merged, func(x Merged) bool { return x.ID == m.ID }); i >= 0 {
		l.Merged = slices.Clone(l.Merged)
		l.Merged[i] = m
		return l
	}
	l.Merged = append(l.Merged[max(0, len(l.Merged)-MaxAncestors+1):len(l.Merged):len(l.Merged)], m)
	return l
}

// Holds reports whether a revision is one under which the other's writes were taken over.
func (m *Merged) Holds(rev uint64) bool {
	if m == nil {
		return false
	}
	_, found := slices.BinarySearchFunc(m.here, rev, func(s span, rev uint64) int {
		switch {
		case s.last < rev:
			return -1
		case s.first > rev:
			return 1
		}
		return 0
	})
	return found
}

// Clone returns a copy that may be changed; nil gives an empty one.
func (m *Merged) Clone(id string) Merged {
	if m == nil {
		return Merged{ID: id}
	}
	c := *m
	c.here = slices.Clone(c.here)
	return c
}

// Note adds a revision under which a write of the other lineage was taken over, newer than all
// before. The record must be a Clone.
func (m *Merged) Note(rev uint64) {
	if n := len(m.here); n > 0 && m.here[n-1].last+1 == rev {
		m.here[n-1].last = rev
		return
	}
	m.here = append(m.here, span{rev, rev})
	if len(m.here) > maxSpans {
		m.here = m.here[1:]
	}
}

// Inherit adds what another lineage, all of which is here now, had merged itself.
func (l Lineage) Inherit(from Lineage) Lineage {
	for _, m := range from.Merged {
		mine := l.Of(m.ID).Clone(m.ID)
		if m.Revision > mine.Revision && m.ID != l.ID {
			mine.Point, mine.Newest = m.Point, max(m.Newest, mine.Newest)
			l = l.With(mine)
		}
	}
	return l
}

// Append appends the lineage, as snapshots, merges and calls between replicas carry it.
func (l Lineage) Append(b []byte) []byte {
	b = codec.AppendString(b, l.ID)
	b = binary.BigEndian.AppendUint64(b, uint64(l.Born))
	b = binary.AppendUvarint(b, uint64(len(l.Parents)))
	for _, a := range l.Parents {
		b = AppendPoint(codec.AppendString(b, a.ID), a.Point)
	}
	b = binary.AppendUvarint(b, uint64(len(l.Merged)))
	for _, m := range l.Merged {
		b = AppendPoint(codec.AppendString(b, m.ID), m.Point)
		b = binary.AppendUvarint(b, m.Newest)
		b = binary.AppendUvarint(b, uint64(len(m.here)))
		at := uint64(0)
		for _, s := range m.here {
			b = binary.AppendUvarint(b, s.first-at)
			b = binary.AppendUvarint(b, s.last-s.first)
			at = s.last
		}
	}
	return b
}

// AppendPoint appends a point.
func AppendPoint(b []byte, p Point) []byte {
	return binary.AppendUvarint(binary.BigEndian.AppendUint64(b, uint64(p.Stamp)), p.Revision)
}

// ReadPoint reads what AppendPoint wrote.
func ReadPoint(r *codec.Reader) Point {
	return Point{Stamp: hlc.Stamp(r.Uint64()), Revision: r.Uvarint()}
}

var errBadLineage = errors.New("malformed lineage")

// DecodeLineage reads what Append wrote.
func DecodeLineage(b []byte) (Lineage, error) {
	r := codec.Reader{B: b}
	l := Lineage{ID: string(r.Bytes(MaxID)), Born: hlc.Stamp(r.Uint64())}
	for n := count(&r, MaxAncestors); n > 0; n-- {
		l.Parents = append(l.Parents, Ancestor{ID: string(r.Bytes(MaxID)), Point: ReadPoint(&r)})
	}
	for n := count(&r, MaxAncestors); n > 0; n-- {
		m := Merged{ID: string(r.Bytes(MaxID)), Point: ReadPoint(&r), Newest: r.Uvarint()}
		at := uint64(0)
		for k := count(&r, maxSpans); k > 0; k-- {
			s := span{first: at + r.Uvarint()}
			s.last = s.first + r.Uvarint()
			if s.first <= at || s.last < s.first {
				return Lineage{}, errBadLineage
			}
			m.here, at = append(m.here, s), s.last
		}
		l.Merged = append(l.Merged, m)
	}
	if r.Bad || len(r.B) > 0 {
		return Lineage{}, errBadLineage
	}
	return l, nil
}

// count reads a number of elements; each takes a byte at least.
func count(r *codec.Reader, limit uint64) uint64 {
	n := r.Uvarint()
	if n > limit || n > uint64(len(r.B)) {
		r.Bad, r.B = true, nil
		return 0
	}
	return n
}
