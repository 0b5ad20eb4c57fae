package state

import (
	"context"
	"log/slog"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/google/btree"
	"github.com/hashicorp/raft"

	"github.com/podman-swarm/podman-swarm/internal/hlc"
)

// firstRevision is the revision of an empty store: 0 means "any" to Kubernetes clients.
const firstRevision = 1

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

// fsm is the replicated state machine: the same commands in the same order give the same state on
// every replica. Nothing in it that decides looks at a clock; retention, which is local, does.
type fsm struct {
	log   *slog.Logger
	clock *hlc.Clock
	now   func() time.Time
	// onConfig is told every committed cluster configuration.
	onConfig func(raft.Configuration)

	current atomic.Pointer[version] // the newest version, when a reader asked for it
	rev     atomic.Uint64           // written under mu

	mu      sync.RWMutex
	live    *tree
	expiry  *expiryTree
	applied uint64 // log index
	stamp   hlc.Stamp
	hist    history
	views   viewCache
	watches watchers
	waiters []waiter
	closed  bool

	// sooner says that an entry now expires before all others.
	sooner chan struct{}
}

// outcome is what a command came to; it travels through Raft's future.
type outcome struct {
	result Result
	err    error
	index  uint64
}

func newFSM(log *slog.Logger, keep Retention) *fsm {
	f := &fsm{
		log: log, clock: hlc.New(time.Now), now: time.Now,
		live: newTree(), expiry: newExpiryTree(),
		hist: history{base: firstRevision, keep: keep}, sooner: make(chan struct{}, 1),
	}
	f.rev.Store(firstRevision)
	f.watches.init()
	return f
}

// Apply implements raft.FSM.
func (f *fsm) Apply(l *raft.Log) any { return f.ApplyBatch([]*raft.Log{l})[0] }

// ApplyBatch implements raft.BatchingFSM: one lock and one wake-up for a group of entries.
func (f *fsm) ApplyBatch(logs []*raft.Log) []any {
	out := make([]any, len(logs))
	f.mu.Lock()
	before := f.rev.Load()
	for i, l := range logs {
		// After a restart of Raft under a live state machine entries come again.
		if l.Index <= f.applied {
			out[i] = &outcome{index: l.Index}
			continue
		}
		switch l.Type {
		case raft.LogCommand:
			out[i] = f.command(l)
		case raft.LogConfiguration:
			if f.onConfig != nil {
				f.onConfig(raft.DecodeConfiguration(l.Data))
			}
		default:
		}
		f.applied = l.Index
	}
	if f.rev.Load() != before {
		f.publish(before)
	}
	f.wakeWaiters()
	f.mu.Unlock()
	return out
}

// publish makes the events after a revision known. Called with the lock held.
func (f *fsm) publish(before uint64) {
	f.current.Store(nil)
	for _, ev := range f.hist.since(max(before, f.hist.base)) {
		f.watches.notify(ev.Key, ev.Revision)
	}
}

// command decodes and applies one command.
func (f *fsm) command(l *raft.Log) *outcome {
	c, err := decodeCommand(l.Data)
	if err != nil {
		// Every replica of this version refuses it alike, so the state stays the same everywhere.
		f.log.Error("log entry refused", "index", l.Index, "err", err)
		return &outcome{err: err, index: l.Index}
	}
	cur, _ := f.live.Get(item{key: c.key})
	if !met(c, cur.entry) {
		return &outcome{result: Result{Revision: f.rev.Load(), Current: cur.entry}, err: ErrConflict, index: l.Index}
	}
	return &outcome{result: f.mutate(c, cur.entry), index: l.Index}
}

// met reports whether the key's current entry (nil: none) meets the command's expectation.
func met(c command, cur *Entry) bool {
	switch {
	case c.op == opDelete && cur == nil:
		return false
	case c.expect == Any:
		return true
	case cur == nil:
		return c.expect == 0
	}
	return c.expect == cur.ModRevision
}

func (f *fsm) mutate(c command, cur *Entry) Result {
	rev := f.rev.Load() + 1
	// Stamps follow the order of the log even where two leaders' clocks disagree.
	f.stamp = max(c.stamp, f.stamp+1)
	f.clock.Observe(f.stamp)
	ev := Event{Revision: rev, Key: c.key, Prev: cur}
	if cur != nil {
		ev.Key = cur.Key // one copy of the string
		f.expiry.remove(cur)
	}
	res := Result{Revision: rev, Entry: cur}
	if c.op == opDelete {
		f.live.Delete(item{key: ev.Key})
	} else {
		e := &Entry{
			Key: ev.Key, Value: c.value[:len(c.value):len(c.value)],
			CreateRevision: rev, ModRevision: rev, Stamp: f.stamp, Expires: c.expires,
		}
		if cur != nil {
			e.CreateRevision = cur.CreateRevision
		}
		f.live.ReplaceOrInsert(item{key: e.Key, entry: e})
		if f.expiry.add(e) {
			f.alarm()
		}
		ev.Entry, res.Entry = e, e
	}
	f.hist.append(ev, f.now())
	f.rev.Store(rev)
	return res
}

// waiter is somebody who waits until a revision or a log index is applied here.
type waiter struct {
	rev, index uint64
	done       chan struct{}
}

// wakeWaiters is called with the lock held.
func (f *fsm) wakeWaiters() {
	rev := f.rev.Load()
	keep := f.waiters[:0]
	for _, w := range f.waiters {
		if w.rev <= rev && w.index <= f.applied || f.closed {
			close(w.done)
		} else {
			keep = append(keep, w)
		}
	}
	clear(f.waiters[len(keep):])
	f.waiters = keep
}

// await returns a channel that closes when the revision and the log index are applied, or the
// store closes.
func (f *fsm) await(rev, index uint64) <-chan struct{} {
	w := waiter{rev: rev, index: index, done: make(chan struct{})}
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.closed || f.rev.Load() >= rev && f.applied >= index {
		close(w.done)
	} else {
		f.waiters = append(f.waiters, w)
	}
	return w.done
}

// waitFor waits until the revision and the log index are applied here.
func (f *fsm) waitFor(ctx context.Context, rev, index uint64) error {
	done := f.await(rev, index)
	select {
	case <-done:
	case <-ctx.Done():
		f.forget(done)
		return ctx.Err()
	}
	f.mu.RLock()
	defer f.mu.RUnlock()
	if f.rev.Load() < rev || f.applied < index {
		return ErrClosed
	}
	return nil
}

// forget drops a waiter that gave up.
func (f *fsm) forget(done <-chan struct{}) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.waiters = slices.DeleteFunc(f.waiters, func(w waiter) bool { return w.done == done })
}

func (f *fsm) appliedIndex() uint64 {
	f.mu.RLock()
	defer f.mu.RUnlock()
	return f.applied
}

// due returns what expires at or before a time, and when the next one does.
func (f *fsm) due(unix int64, limit int) ([]*Entry, int64) {
	f.mu.RLock()
	defer f.mu.RUnlock()
	return f.expiry.due(unix, limit)
}

// alarm tells the leader's expiry to look again.
func (f *fsm) alarm() {
	select {
	case f.sooner <- struct{}{}:
	default:
	}
}

// retain drops events and cached views past their time; it returns when to come again, zero when
// nothing is kept.
func (f *fsm) retain() time.Time {
	f.mu.Lock()
	defer f.mu.Unlock()
	next := f.hist.expire(f.now())
	f.views.age(f.hist.base)
	return next
}

// compact drops the history up to and including rev.
func (f *fsm) compact(rev uint64) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if rev > 0 {
		f.hist.drop(min(rev, f.hist.last()))
	}
	f.views.age(f.hist.base)
}

// shut makes every waiter and watch return ErrClosed.
func (f *fsm) shut() {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.closed = true
	f.watches.wakeAll()
	f.wakeWaiters()
}
