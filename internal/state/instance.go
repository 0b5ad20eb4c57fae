package state

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"github.com/hashicorp/raft"

	"github.com/podman-swarm/podman-swarm/internal/state/machine"
	"github.com/podman-swarm/podman-swarm/internal/state/raftnet"
)

// instance is one run of Raft over a state machine. The state machine outlives it: after a storage
// error Raft is stopped and started again under readers that notice nothing.
type instance struct {
	r      *raft.Raft
	fsm    *machine.Machine
	self   raft.ServerID
	stores stores
	trans  *raftnet.Transport // of the lineage: it serves every instance there
	left   bool               // the transport has ended

	// move says that this replica came from another lineage and has not caught up yet.
	move atomic.Bool
	// arrived closes when the machine has all that it needs to be read; nil: it is read already.
	arrived chan struct{}
	cancel  context.CancelFunc

	// ready is the term in which this replica led and had committed an entry of its own: from
	// then on its commit index is the truth.
	ready   atomic.Uint64
	settled atomic.Uint64 // no command lies between fsm.applied and this index
	once    sync.Once
	ended   error
	shut    sync.Once
	closed  error
	stopped chan struct{}
	wg      sync.WaitGroup

	mu      sync.Mutex
	changed chan struct{} // closed at the next change of leadership
	busy    int           // futures of Raft that are not answered yet
	closing bool
	idle    chan struct{} // closed when closing and nothing is busy
}

const (
	heartbeat = 500 * time.Millisecond
	lease     = 250 * time.Millisecond
	// trailing entries let a replica that was away catch up without a snapshot.
	trailing      = 10240
	snapshotEvery = 8192
	groupSize     = 64
)

// raftConfig holds the measured settings; docs/adr says why.
func (s *Store) raftConfig(id raft.ServerID) *raft.Config {
	c := raft.DefaultConfig()
	c.LocalID = id
	c.HeartbeatTimeout, c.ElectionTimeout, c.LeaderLeaseTimeout = heartbeat, heartbeat, lease
	c.CommitTimeout = 50 * time.Millisecond
	c.MaxAppendEntries, c.BatchApplyCh = groupSize, true
	c.TrailingLogs, c.SnapshotThreshold = trailing, snapshotEvery
	c.NoLegacyTelemetry = true
	c.NoSnapshotRestoreOnStart = true // the store restores its own state machine first
	c.Logger = raftnet.NewLogger(s.log)
	if s.cfg.tune != nil {
		s.cfg.tune(c)
	}
	return c
}

// run runs Raft on the stores and waits for nothing.
func (s *Store) run(st stores, m *machine.Machine, trans *raftnet.Transport) (*instance, error) {
	in := &instance{
		fsm: m, self: st.id(), stores: st, trans: trans,
		stopped: make(chan struct{}), changed: make(chan struct{}), idle: make(chan struct{}),
	}
	conf := s.raftConfig(st.id())
	notify := make(chan bool, 8) // unread, it would block Raft's main loop
	conf.NotifyCh = notify
	r, err := raft.NewRaft(conf, m, st.logs, st.stable, st.snaps, trans)
	if err != nil {
		return nil, fmt.Errorf("start raft: %w", err)
	}
	in.r = r
	seen := make(chan raft.Observation, 16)
	observer := raft.NewObserver(seen, false, func(o *raft.Observation) bool {
		_, ok := o.Data.(raft.LeaderObservation)
		return ok
	})
	r.RegisterObserver(observer)
	in.wg.Go(func() {
		defer r.DeregisterObserver(observer)
		in.follow(notify, seen)
	})
	var ctx context.Context
	ctx, in.cancel = context.WithCancel(s.ctx)
	if f := st.cur.Former; f != nil {
		in.move.Store(true)
		in.arriveAt(ctx, f.Reach)
	}
	in.hurry()
	return in, nil
}

// arriveAt closes arrived when the machine reaches a revision.
func (in *instance) arriveAt(ctx context.Context, rev uint64) {
	arrived := make(chan struct{})
	in.arrived = arrived
	in.wg.Go(func() {
		if in.fsm.WaitFor(ctx, rev, 0) == nil {
			close(arrived)
		}
	})
}

// moving reports whether this replica could go back to where it came from.
func (in *instance) moving() bool { return in.move.Load() }

// led reports whether Raft knows a leader.
func (in *instance) led() bool {
	_, id := in.r.LeaderWithID()
	return id != ""
}

// hurry makes the only voter stand for election at once: there is nobody to wait for. Raft looks
// at its election timer when the heartbeat timeout is lowered, so it is lowered by a hair.
func (in *instance) hurry() {
	rc := in.r.ReloadableConfig()
	rc.HeartbeatTimeout -= time.Millisecond
	if in.alone() {
		_ = in.r.ReloadConfig(rc) // a valid one
	}
}

// follow turns Raft's signals about leadership into one broadcast.
func (in *instance) follow(notify <-chan bool, seen <-chan raft.Observation) {
	for {
		select {
		case <-in.stopped:
			return
		case leads := <-notify:
			if leads {
				in.wg.Go(in.settle)
			}
		case <-seen:
		}
		in.broadcast()
	}
}

// settle commits an entry in the new leader's term.
func (in *instance) settle() {
	term := in.r.CurrentTerm()
	err := in.await(context.Background(), func() raft.Future { return in.r.Barrier(0) }) //nolint:forbidigo // ends with the instance
	if err != nil {
		return // leadership went; whoever has it next settles
	}
	in.ready.Store(term)
	in.broadcast()
}

func (in *instance) broadcast() {
	in.mu.Lock()
	defer in.mu.Unlock()
	close(in.changed)
	in.changed = make(chan struct{})
}

// change returns a channel that closes at the next change of leadership. Take it before looking.
func (in *instance) change() <-chan struct{} {
	in.mu.Lock()
	defer in.mu.Unlock()
	return in.changed
}

// leads reports whether this replica is the leader and knows everything that was committed.
func (in *instance) leads() bool {
	return in.r.State() == raft.Leader && in.ready.Load() == in.r.CurrentTerm()
}

// members is the newest configuration in the log, which counts from when it is written, not only
// from when it is committed.
func (in *instance) members() raft.Configuration {
	f := in.r.GetConfiguration()
	if f.Error() != nil { // never: it is answered from memory
		return raft.Configuration{}
	}
	return f.Configuration()
}

// alone reports whether this replica is the only voter.
func (in *instance) alone() bool { return onlyVoter(in.members(), in.self) }

// followed reports whether other replicas exist.
func (in *instance) followed() bool { return len(in.members().Servers) > 1 }

// await waits for a future of Raft. Raft leaves futures unanswered when it is shut down, so those
// are counted, stop lets them come to an end first, and nobody waits longer than the instance
// lives.
func (in *instance) await(ctx context.Context, start func() raft.Future) error {
	in.mu.Lock()
	if in.closing {
		in.mu.Unlock()
		return raft.ErrRaftShutdown
	}
	in.busy++
	in.mu.Unlock()
	done := make(chan error, 1)
	go func() {
		err := start().Error()
		in.mu.Lock()
		in.busy--
		if in.closing && in.busy == 0 {
			close(in.idle)
		}
		in.mu.Unlock()
		done <- err
	}()
	select {
	case err := <-done:
		return err
	case <-ctx.Done():
		return ctx.Err()
	case <-in.stopped:
		return raft.ErrRaftShutdown
	}
}

// stopTimeout bounds how long stop waits for answers of Raft.
const stopTimeout = 2 * time.Second

// drain lets no more futures begin and waits for those that did. Raft answers while it runs: a
// leader without a majority steps down after its lease.
func (in *instance) drain() {
	in.mu.Lock()
	in.closing = true
	busy := in.busy
	in.mu.Unlock()
	if busy == 0 {
		return
	}
	timer := time.NewTimer(stopTimeout)
	defer timer.Stop()
	select {
	case <-in.idle:
	case <-timer.C: // the disk hangs
	}
}

// waitLeader waits until this replica leads.
func (in *instance) waitLeader(ctx context.Context) error {
	for {
		changed := in.change()
		if in.leads() {
			return nil
		}
		select {
		case <-changed:
		case <-in.stopped:
			return ErrClosed
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// caughtUp waits until the state machine holds every command that is committed now. Raft's own
// applied index counts what was handed over, not what was applied.
func (in *instance) caughtUp(ctx context.Context) error {
	commit := in.r.CommitIndex()
	from := max(in.fsm.Applied(), in.settled.Load())
	if last := in.stores.lastCommand(from, commit); last != 0 {
		return in.fsm.WaitFor(ctx, 0, last)
	}
	for {
		old := in.settled.Load()
		if old >= commit || in.settled.CompareAndSwap(old, commit) {
			return nil
		}
	}
}

// lineage names the history that this instance goes on with.
func (in *instance) lineage() string { return in.stores.cur.Lineage }

// member reports whether this replica is in the configuration, with or without a vote. The entry
// that brought it in comes after all that was written before.
func (in *instance) member() bool {
	for _, s := range in.members().Servers {
		if s.ID == in.self {
			return true
		}
	}
	return false
}

// voters names those that have a vote.
func (in *instance) voters() []string {
	var out []string
	for _, s := range in.members().Servers {
		if s.Suffrage == raft.Voter {
			out = append(out, string(s.ID))
		}
	}
	return out
}

// halt ends Raft, and leaves the stores open for who reads them.
func (in *instance) halt() error {
	in.once.Do(func() {
		in.drain()
		if in.stores.disk != nil {
			in.stores.disk.Release()
		}
		in.ended = in.r.Shutdown().Error()
		close(in.stopped)
		in.cancel()
		in.broadcast()
		in.wg.Wait()
	})
	return in.ended
}

// stop ends Raft and closes the stores.
func (in *instance) stop() error {
	err := in.halt()
	in.shut.Do(func() { in.closed = in.stores.close() })
	return errors.Join(err, in.closed)
}

// leave ends Raft and its connections: Raft does not wait for answers of the dead then.
func (in *instance) leave() error {
	in.drain()
	in.left = true
	return errors.Join(in.trans.End(), in.halt())
}
