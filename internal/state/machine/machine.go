package machine

import (
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/google/btree"
	"github.com/hashicorp/raft"

	"github.com/podman-swarm/podman-swarm/internal/hlc"
	"github.com/podman-swarm/podman-swarm/internal/state/tombs"
)

// FirstRevision is the revision of an empty store: 0 means "any" to Kubernetes clients.
const FirstRevision = 1

// degree of the B-trees. A write after a View copies one node per level, so nodes are kept small.
const degree = 16

// item is a key of the tree beside its entry: comparing needs no pointer chase, looking up no
// allocation.
type item struct {
	key   string
	entry *Entry
}

type tree = btree.BTreeG[item]

func newTree() *tree {
	return btree.NewG(degree, func(a, b item) bool { return a.key < b.key })
}

// Machine is the replicated state machine: the same commands in the same order give the same state on
// every replica. Nothing in it that decides looks at a clock; retention, which is local, does.
type Machine struct {
	cfg   Config
	clock *hlc.Clock

	current atomic.Pointer[version] // the newest version, when a reader asked for it
	rev     atomic.Uint64           // written under mu

	mu      sync.RWMutex
	live    *tree
	expiry  *expiryTree
	tombs   tombs.Set
	applied uint64 // log index
	stamp   hlc.Stamp
	lineage Lineage
	hist    history
	views   viewCache
	watches watchers
	waiters []waiter
	closed  bool
	retired bool
	stuck   error // why nothing is applied any more

	sooner chan struct{}
}

// Config says how a machine behaves where replicas may differ.
type Config struct {
	Log    *slog.Logger
	Retain Retention
	// Now is the wall clock, for stamps and for the age of history.
	Now func() time.Time
	// Lineage of a new machine; what a snapshot says replaces it.
	Lineage Lineage
}

// Outcome is what a command came to; it is what Raft's future of an applied command returns.
type Outcome struct {
	Result
	Err error
	// Merged is what a Merge came to.
	Merged *Counts
}

// New returns an empty machine.
func New(cfg Config) *Machine {
	f := &Machine{
		cfg: cfg, clock: hlc.New(cfg.Now),
		live: newTree(), expiry: newExpiryTree(), tombs: tombs.New(tombs.Max), lineage: cfg.Lineage,
		hist: history{base: FirstRevision, keep: cfg.Retain}, sooner: make(chan struct{}, 1),
	}
	f.rev.Store(FirstRevision)
	f.watches.init()
	return f
}

// Revision is the newest revision applied.
func (f *Machine) Revision() uint64 { return f.rev.Load() }

// Stamp returns a stamp newer than every write applied here: for the leader's next write.
func (f *Machine) Stamp() hlc.Stamp { return f.clock.Now() }

// Apply implements raft.FSM.
func (f *Machine) Apply(l *raft.Log) any { return f.ApplyBatch([]*raft.Log{l})[0] }

// ApplyBatch implements raft.BatchingFSM: one lock and one wake-up for a group of entries. The
// answers are *Outcome.
func (f *Machine) ApplyBatch(logs []*raft.Log) []any {
	out := make([]any, len(logs))
	f.mu.Lock()
	before := f.rev.Load()
	for i, l := range logs {
		// After a restart of Raft under a live state machine entries come again.
		if l.Index <= f.applied {
			out[i] = &Outcome{}
			continue
		}
		if f.stuck != nil {
			out[i] = &Outcome{Err: f.stuck}
			continue
		}
		if l.Type == raft.LogCommand {
			out[i] = f.command(l)
		}
		if f.stuck == nil {
			f.applied = l.Index
		}
	}
	if f.rev.Load() != before {
		f.publish(before)
	}
	f.wakeWaiters()
	f.mu.Unlock()
	return out
}

// publish makes the events after a revision known. Called with the lock held.
func (f *Machine) publish(before uint64) {
	f.current.Store(nil)
	for _, ev := range f.hist.since(max(before, f.hist.base)) {
		f.watches.notify(ev.Key, ev.Revision)
	}
}

// command decodes and applies one log entry.
func (f *Machine) command(l *raft.Log) *Outcome {
	if isMerge(l.Data) {
		m, err := DecodeMerge(l.Data)
		if err != nil {
			return f.refuse(l, err)
		}
		return f.merge(m)
	}
	c, err := decodeCommand(l.Data)
	if err != nil {
		return f.refuse(l, err)
	}
	cur, _ := f.live.Get(item{key: c.Key})
	if !met(&c, cur.entry) {
		return &Outcome{Result: Result{Revision: f.rev.Load(), Current: cur.entry}, Err: ErrConflict}
	}
	return &Outcome{Result: f.mutate(&c, cur.entry)}
}

// refuse answers a log entry that cannot be read. A malformed one is refused alike by every
// replica, so the state stays the same everywhere. What a newer version wrote means something to
// others: skipping it would be silent divergence.
func (f *Machine) refuse(l *raft.Log, err error) *Outcome {
	f.cfg.Log.Error("log entry refused", "index", l.Index, "err", err)
	if errors.Is(err, errNewer) {
		f.stuck = fmt.Errorf("state stops at log entry %d: %w", l.Index, err)
	}
	return &Outcome{Err: err}
}

// met reports whether the key's current entry (nil: none) meets the command's expectation.
func met(c *Command, cur *Entry) bool {
	switch {
	case c.Delete && cur == nil:
		return false
	case c.Expect == Any:
		return true
	case cur == nil:
		return c.Expect == 0
	}
	return c.Expect == cur.ModRevision
}

func (f *Machine) mutate(c *Command, cur *Entry) Result {
	// Stamps follow the order of the log even where two leaders' clocks disagree.
	before := f.stamp
	f.observe(max(c.Stamp, before+1))
	f.tombs.Pass(before, f.stamp)
	if c.Delete {
		f.remove(cur, f.stamp)
		return Result{Revision: f.rev.Load(), Entry: cur}
	}
	e := &Entry{Key: c.Key, Value: c.Value[:len(c.Value):len(c.Value)], Stamp: f.stamp, Expires: c.Expires}
	f.put(e, cur)
	return Result{Revision: e.ModRevision, Entry: e}
}

// observe makes a stamp known: what is written here later has a newer one.
func (f *Machine) observe(s hlc.Stamp) {
	if s > f.stamp {
		f.stamp = s
		f.clock.Observe(s)
	}
}

// put makes a new entry the current one in place of cur (nil: none).
func (f *Machine) put(e, cur *Entry) {
	e.ModRevision = f.rev.Load() + 1
	e.CreateRevision = e.ModRevision
	if cur != nil {
		e.Key, e.CreateRevision = cur.Key, cur.CreateRevision // one copy of the string
		f.expiry.remove(cur)
	} else {
		f.tombs.Drop(e.Key)
	}
	f.live.ReplaceOrInsert(item{key: e.Key, entry: e})
	if f.expiry.add(e) {
		f.alarm()
	}
	f.happened(Event{Revision: e.ModRevision, Key: e.Key, Entry: e, Prev: cur})
}

// remove deletes an entry. What expires leaves no trace: it is gone everywhere soon. A conflict
// does, or one that was settled could come back.
func (f *Machine) remove(cur *Entry, s hlc.Stamp) {
	rev := f.rev.Load() + 1
	f.expiry.remove(cur)
	f.live.Delete(item{key: cur.Key})
	if cur.Expires == 0 || strings.HasPrefix(cur.Key, ConflictPrefix) {
		f.tombs.Add(&tombs.Tomb{Key: cur.Key, Stamp: s, Revision: rev})
	}
	f.happened(Event{Revision: rev, Key: cur.Key, Prev: cur})
}

func (f *Machine) happened(ev Event) {
	f.hist.append(ev, f.cfg.Now())
	f.rev.Store(ev.Revision)
}

// Applied is the index of the newest log entry applied.
func (f *Machine) Applied() uint64 {
	f.mu.RLock()
	defer f.mu.RUnlock()
	return f.applied
}

// Stuck is why nothing is applied any more; nil as long as all is well.
func (f *Machine) Stuck() error {
	f.mu.RLock()
	defer f.mu.RUnlock()
	return f.stuck
}

// Sooner returns a channel that gets a value when an entry comes that expires before all others.
func (f *Machine) Sooner() <-chan struct{} { return f.sooner }

// Due returns up to limit entries that expire at or before a time, in order, and the expiry of the
// first one after those; 0: none. All in Unix seconds.
func (f *Machine) Due(unix int64, limit int) ([]*Entry, int64) {
	f.mu.RLock()
	defer f.mu.RUnlock()
	return f.expiry.due(unix, limit)
}

// alarm tells whoever expires entries to look again.
func (f *Machine) alarm() {
	select {
	case f.sooner <- struct{}{}:
	default:
	}
}

// Age drops events and cached views past their time; it returns when to come again, zero when
// nothing is kept.
func (f *Machine) Age() time.Time {
	f.mu.Lock()
	defer f.mu.Unlock()
	next := f.hist.expire(f.cfg.Now())
	f.views.age(f.hist.base)
	return next
}

// Compact drops the history up to and including rev.
func (f *Machine) Compact(rev uint64) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if rev > 0 {
		f.hist.drop(min(rev, f.hist.last()))
	}
	f.views.age(f.hist.base)
}

// Close makes every waiter and watch return ErrClosed; reads go on.
func (f *Machine) Close() {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.closed = true
	f.watches.wakeAll()
	f.wakeWaiters()
}
