package machine

import (
	"encoding/binary"
	"errors"
	"fmt"

	"github.com/google/btree"

	"github.com/podman-swarm/podman-swarm/internal/hlc"
	"github.com/podman-swarm/podman-swarm/internal/state/ancestry"
	"github.com/podman-swarm/podman-swarm/internal/state/codec"
	"github.com/podman-swarm/podman-swarm/internal/state/journal"
	"github.com/podman-swarm/podman-swarm/internal/state/tombs"
)

// Changes walks over what a history did to the keys after a point: the entries and the deletions
// that stand, not those that were replaced. It shows one moment, at no cost but that moment's
// entries as long as it is held. One goroutine at a time may use it.
type Changes struct {
	Lineage Lineage // of the history
	Newest  Point   // the moment
	// Handing, if set, tells entries that are not handed over like others; see the store's Config.
	Handing func(key string, value []byte) journal.Handing

	since  uint64
	live   *tree
	gone   *btree.BTreeG[*tombs.Tomb]
	from   string      // where to go on in live
	buried *tombs.Tomb // where to go on in gone; nil: not begun
}

// Changes returns the changes after a point of the machine's own history; see Since. The point's
// revision decides: stamps do not tell when a merged write came here.
func (f *Machine) Changes(since Point) *Changes {
	f.mu.Lock()
	defer f.mu.Unlock()
	return &Changes{
		Lineage: f.lineage, Newest: Point{Stamp: f.stamp, Revision: f.rev.Load()},
		since: since.Revision, live: f.head().tree, gone: f.tombs.Image(),
	}
}

// Next returns further changes, encoded in about limit bytes: more only when a single change is
// larger. The last chunk, the only one that may be empty, says so.
func (c *Changes) Next(limit int) (chunk []byte, last bool) {
	chunk = []byte{chunkVersion - 1}
	var one []byte
	add := func(x change) bool {
		if x.rev <= c.since {
			return true
		}
		if !x.deleted && c.Handing != nil {
			handing := c.Handing(x.key, x.value)
			if handing == journal.Withhold {
				return true
			}
			x.lost = handing == journal.Record
		}
		one = x.append(one[:0])
		if len(chunk) > 1 && len(chunk)+len(one) > limit {
			return false
		}
		if chunk = append(chunk, one...); x.lost {
			chunk[0] = chunkVersion
		}
		return true
	}
	full := false
	if c.live != nil {
		c.live.AscendGreaterOrEqual(item{key: c.from}, func(it item) bool {
			e := it.entry
			full = !add(change{key: e.Key, rev: e.ModRevision, stamp: e.Stamp, expires: e.Expires, value: e.Value})
			c.from = e.Key
			return !full
		})
		if full {
			return chunk, false
		}
		c.live = nil
	}
	bury := func(t *tombs.Tomb) bool {
		full = !add(change{key: t.Key, rev: t.Revision, stamp: t.Stamp, deleted: true})
		c.buried = t
		return !full
	}
	if c.buried == nil {
		c.gone.Ascend(bury)
	} else {
		c.gone.AscendGreaterOrEqual(c.buried, bury)
	}
	return chunk, !full
}

// change is one key's present state as another lineage sees it.
type change struct {
	key     string
	rev     uint64 // in the history it comes from
	stamp   hlc.Stamp
	deleted bool
	lost    bool // it loses to what there is
	expires int64
	value   []byte
}

// A chunk is: byte version, then changes to the end, each:
//
//	byte    1: entry, 2: deletion, 3: lost entry
//	uvarint length of the key, then the key
//	uint64  stamp
//	uvarint revision
//	uvarint expiry, uvarint length of the value, then the value (entries only)
//
// Version 1 is still written where nothing is lost, so that a program without lost entries reads on.
const (
	chunkVersion = 2

	chunkEntry    = 1
	chunkDeletion = 2
	chunkLost     = 3
	// maxChunk bounds a chunk as it is read, so that a log entry stays what the log can hold.
	maxChunk = maxEntry + 1<<20
)

var errBadChunk = errors.New("malformed changes")

func (x change) append(b []byte) []byte {
	kind := byte(chunkEntry)
	switch {
	case x.deleted:
		kind = chunkDeletion
	case x.lost:
		kind = chunkLost
	}
	b = codec.AppendString(append(b, kind), x.key)
	b = ancestry.AppendPoint(b, Point{Stamp: x.stamp, Revision: x.rev})
	if !x.deleted {
		b = binary.AppendUvarint(b, uint64(x.expires))
		b = binary.AppendUvarint(b, uint64(len(x.value)))
		b = append(b, x.value...)
	}
	return b
}

// decodeChunk reads a chunk; values share memory with b.
func decodeChunk(b []byte) ([]change, error) {
	if len(b) == 0 || len(b) > maxChunk {
		return nil, fmt.Errorf("%w: %d bytes", errBadChunk, len(b))
	}
	if err := codec.CheckVersion("changes", uint32(b[0]), chunkVersion); err != nil {
		return nil, err
	}
	var all []change
	for r := (codec.Reader{B: b[1:]}); len(r.B) > 0; {
		x := change{deleted: r.B[0] == chunkDeletion, lost: r.B[0] == chunkLost}
		if !x.deleted && !x.lost && r.B[0] != chunkEntry {
			return nil, errBadChunk
		}
		r.B = r.B[1:]
		x.key = string(r.Bytes(MaxKey))
		p := ancestry.ReadPoint(&r)
		x.rev, x.stamp = p.Revision, p.Stamp
		if !x.deleted {
			x.expires = int64(r.Uvarint())
			x.value = r.Bytes(maxStored)
		}
		if r.Bad || x.key == "" || x.rev == 0 || x.expires < 0 {
			return nil, errBadChunk
		}
		all = append(all, x)
	}
	return all, nil
}
