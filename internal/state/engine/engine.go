package engine

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"github.com/hashicorp/raft"

	"github.com/podman-swarm/podman-swarm/internal/state/home"
	"github.com/podman-swarm/podman-swarm/internal/state/machine"
	"github.com/podman-swarm/podman-swarm/internal/state/raftnet"
)

// Engine is one run of Raft over a state machine. The state machine outlives it: after a storage
// error Raft is stopped and started again under readers that notice nothing.
type Engine struct {
	Raft    *raft.Raft
	Machine *machine.Machine
	Self    raft.ServerID
	Stores  home.Stores
	// Trans is the transport of the lineage, which serves every engine there until Leave.
	Trans *raftnet.Transport
	left  bool

	// move says that this replica came from another lineage and has not caught up yet.
	move atomic.Bool
	// arrived closes when the machine has all that it needs to be read; nil: it is read already.
	arrived chan struct{}
	cancel  context.CancelFunc

	// ready is the term in which this replica led and had committed an entry of its own: from
	// then on its commit index is the truth.
	ready     atomic.Uint64
	confirmed *confirmations
	settled   atomic.Uint64 // no command lies between fsm.applied and this index
	once      sync.Once
	ended     error
	shut      sync.Once
	closed    error
	ending    chan struct{} // closed when Raft is about to be stopped
	stopped   chan struct{}
	writing   atomic.Int64  // writes that are under way
	handing   atomic.Int64  // hand-overs that are under way: no write begins
	calm      chan struct{} // wakes a hand-over when no write is under way
	nudge     chan struct{} // wakes the teller
	wg        sync.WaitGroup

	stall *stall

	yielding sync.Mutex
	stay     time.Time // until then leadership is not handed over again

	mu      sync.Mutex
	changed chan struct{} // closed at the next change of leadership
	busy    int           // futures of Raft that are not answered yet
	closing bool
	idle    chan struct{} // closed when closing and nothing is busy
}

const (
	// Heartbeat is how long a follower waits for its leader.
	Heartbeat = 500 * time.Millisecond
	// lease is how long a leader goes on without hearing of a majority. No answer depends on it (see
	// Confirm), so it is as long as the followers' patience: with half of it leaders of busy machines, which were
	// late but not gone, stepped down again and again.
	lease = Heartbeat - 50*time.Millisecond
	// commitTimeout, up to twice of it, is when a follower learns of a commit that nothing told it
	// of. An empty entry tells it at once after every burst of writes, so this is for the rest, and
	// what it costs grows with the swarm: at 50 ms as much as all heartbeats.
	commitTimeout = 250 * time.Millisecond
	// trailing entries let a replica that was away catch up without a snapshot.
	trailing      = 10240
	snapshotEvery = 8192
	groupSize     = 64
)

// Config says how to run Raft.
type Config struct {
	Log     *slog.Logger
	Stores  home.Stores
	Machine *machine.Machine
	Trans   *raftnet.Transport
	// Reach is the revision from which on the machine can be read; 0: it can be already.
	Reach uint64
	Tune  func(*raft.Config) // tests
}

// raftConfig holds the measured settings; docs/adr says why.
func (c Config) raftConfig() *raft.Config {
	r := raft.DefaultConfig()
	r.LocalID = c.Stores.ID()
	r.HeartbeatTimeout, r.ElectionTimeout, r.LeaderLeaseTimeout = Heartbeat, Heartbeat, lease
	r.CommitTimeout = commitTimeout
	r.MaxAppendEntries, r.BatchApplyCh = groupSize, true
	r.TrailingLogs, r.SnapshotThreshold = trailing, snapshotEvery
	r.NoLegacyTelemetry = true
	r.NoSnapshotRestoreOnStart = true // the state machine is restored first
	r.Logger = raftnet.NewLogger(c.Log)
	if c.Tune != nil {
		c.Tune(r)
	}
	return r
}

// Run runs Raft until Halt and waits for nothing; ctx ends what waits in it.
func Run(ctx context.Context, c Config) (*Engine, error) {
	st := c.Stores
	in := &Engine{
		Machine: c.Machine, Self: st.ID(), Stores: st, Trans: c.Trans,
		stopped: make(chan struct{}), changed: make(chan struct{}), idle: make(chan struct{}),
		nudge: make(chan struct{}, 1), calm: make(chan struct{}, 1), ending: make(chan struct{}), confirmed: newConfirmations(),
	}
	in.stall = &stall{changed: func(stalled bool) {
		if stalled {
			c.Log.Error("the disk does not answer: this replica does not lead until it does", "after", patience)
		} else {
			c.Log.Warn("the disk answers again")
		}
		in.Broadcast()
	}}
	conf := c.raftConfig()
	notify := make(chan bool, 8) // unread, it would block Raft's main loop
	conf.NotifyCh = notify
	var members atomic.Pointer[raft.Raft] // Raft sends before it is known here
	trans := paced{c.Trans, func() raft.Configuration { return configuration(members.Load()) }, in.ending, in.confirmed, in.stall}
	r, err := raft.NewRaft(conf, c.Machine, watchedLog{st.Logs, in.stall}, st.Stable, st.Snaps, trans)
	if err != nil {
		return nil, fmt.Errorf("start raft: %w", err)
	}
	in.Raft = r
	members.Store(r)
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
	ctx, in.cancel = context.WithCancel(ctx)
	in.wg.Go(func() { in.teller(ctx) })
	in.move.Store(st.Current.Former != nil)
	if c.Reach > 0 {
		in.arriveAt(ctx, c.Reach)
	}
	in.hurry()
	return in, nil
}

// arriveAt closes arrived when the machine reaches a revision.
func (in *Engine) arriveAt(ctx context.Context, rev uint64) {
	arrived := make(chan struct{})
	in.arrived = arrived
	in.wg.Go(func() {
		if in.Machine.WaitFor(ctx, rev, 0) == nil {
			close(arrived)
		}
	})
}

// Arrived closes when the machine has all that it needs to be read; nil: it is read already.
func (in *Engine) Arrived() <-chan struct{} { return in.arrived }

// Arrive ends the move to this lineage.
func (in *Engine) Arrive() {
	in.arrived = nil
	in.move.Store(false)
	in.Broadcast()
}

// Left reports whether Leave was called: the transport is gone.
func (in *Engine) Left() bool { return in.left }

// Moving reports whether this replica could go back to where it came from.
func (in *Engine) Moving() bool { return in.move.Load() }

// Led reports whether Raft knows a leader.
func (in *Engine) Led() bool {
	_, id := in.Raft.LeaderWithID()
	return id != ""
}

// hurry makes the only voter stand for election at once: there is nobody to wait for. Raft looks
// at its election timer when the heartbeat timeout is lowered, so it is lowered by a hair.
func (in *Engine) hurry() {
	rc := in.Raft.ReloadableConfig()
	rc.HeartbeatTimeout -= time.Millisecond
	if in.Alone() {
		_ = in.Raft.ReloadConfig(rc) // a valid one
	}
}

// follow turns Raft's signals about leadership into one broadcast.
func (in *Engine) follow(notify <-chan bool, seen <-chan raft.Observation) {
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
		in.Broadcast()
	}
}

// Broadcast wakes whoever waits for a change.
func (in *Engine) Broadcast() {
	in.mu.Lock()
	defer in.mu.Unlock()
	close(in.changed)
	in.changed = make(chan struct{})
}

// Change returns a channel that closes at the next change of leadership. Take it before looking.
func (in *Engine) Change() <-chan struct{} {
	in.mu.Lock()
	defer in.mu.Unlock()
	return in.changed
}

// Members is the newest configuration in the log, which counts from when it is written, not only
// from when it is committed.
func (in *Engine) Members() raft.Configuration { return configuration(in.Raft) }

func configuration(r *raft.Raft) raft.Configuration {
	if r == nil {
		return raft.Configuration{}
	}
	f := r.GetConfiguration()
	if f.Error() != nil { // never: it is answered from memory
		return raft.Configuration{}
	}
	return f.Configuration()
}

// Alone reports whether this replica is the only voter.
func (in *Engine) Alone() bool { return home.OnlyVoter(in.Members(), in.Self) }

// Followed reports whether other replicas exist.
func (in *Engine) Followed() bool { return len(in.Members().Servers) > 1 }

// Await waits for a future of Raft. Raft leaves futures unanswered when it is shut down, so those
// are counted, stop lets them come to an end first, and nobody waits longer than the instance
// lives.
func (in *Engine) Await(ctx context.Context, start func() raft.Future) error {
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
func (in *Engine) drain() {
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

// CaughtUp waits until the state machine holds every command that is committed now. Raft's own
// applied index counts what was handed over, not what was applied.
func (in *Engine) CaughtUp(ctx context.Context) error {
	commit := in.Raft.CommitIndex()
	from := max(in.Machine.Applied(), in.settled.Load())
	if last := in.Stores.LastCommand(from, commit); last != 0 {
		return in.Machine.WaitFor(ctx, 0, last)
	}
	for {
		old := in.settled.Load()
		if old >= commit || in.settled.CompareAndSwap(old, commit) {
			return nil
		}
	}
}

// Lineage names the history that this instance goes on with.
func (in *Engine) Lineage() string { return in.Stores.Current.Lineage }

// Member reports whether this replica is in the configuration, with or without a vote. The entry
// that brought it in comes after all that was written before.
func (in *Engine) Member() bool {
	for _, s := range in.Members().Servers {
		if s.ID == in.Self {
			return true
		}
	}
	return false
}

// Voters names those that have a vote.
func (in *Engine) Voters() []string {
	var out []string
	for _, s := range in.Members().Servers {
		if s.Suffrage == raft.Voter {
			out = append(out, string(s.ID))
		}
	}
	return out
}

// Halt ends Raft, and leaves the stores open for who reads them.
func (in *Engine) Halt() error {
	in.once.Do(func() {
		in.drain()
		close(in.ending)
		in.Stores.Release()
		in.ended = in.Raft.Shutdown().Error()
		close(in.stopped)
		in.cancel()
		in.Broadcast()
		in.wg.Wait()
	})
	return in.ended
}

// Stop ends Raft and closes the stores.
func (in *Engine) Stop() error {
	err := in.Halt()
	in.shut.Do(func() { in.closed = in.Stores.Close() })
	return errors.Join(err, in.closed)
}

// Leave ends Raft and its connections: Raft does not wait for answers of the dead then.
func (in *Engine) Leave() error {
	in.drain()
	in.left = true
	return errors.Join(in.Trans.End(), in.Halt())
}
