package state

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"github.com/hashicorp/raft"

	"github.com/podman-swarm/podman-swarm/internal/state/machine"
)

// Config says how to open a Store.
type Config struct {
	// Dir holds everything the store keeps on disk; only this package writes there. Empty: nothing
	// is kept (tests).
	Dir    string
	NodeID string
	Log    *slog.Logger
	// Stream carries Raft between replicas; nil makes the only replica there is. The store
	// closes it.
	Stream raft.StreamLayer
	// Peers carries calls to the leader; needed with Stream.
	Peers Peers
	// Members are the voters a new store begins with, this one among them; nil: this one alone.
	// All of them must be given the same Members and Lineage. Ignored once the store exists.
	Members []Member
	// Lineage names the history of a new store; empty: a new random name.
	Lineage string
	Retain  Retention
	// MinFree is how many bytes the disk must have left for writes to be accepted.
	MinFree uint64

	tune    func(*raft.Config) // tests: snapshots every few entries
	segment int64              // tests: small log files
}

// Member is a replica that has a vote.
type Member struct {
	ID   string // Config.NodeID of that replica
	Addr string // as the Stream and Peers understand it
}

const (
	defaultRetainAge    = 5 * time.Minute
	defaultRetainEvents = 10_000
	defaultMinFree      = 64 << 20
	// readyTimeout is how long Open waits for the only replica to lead. It takes milliseconds;
	// without leadership reads work and writes wait.
	readyTimeout = 5 * time.Second
)

func (c Config) withDefaults() Config {
	if c.Retain.Age == 0 {
		c.Retain.Age = defaultRetainAge
	}
	if c.Retain.Events == 0 {
		c.Retain.Events = defaultRetainEvents
	}
	if c.MinFree == 0 {
		c.MinFree = defaultMinFree
	}
	return c
}

// Store is one replica of the state. All methods are safe for concurrent use.
type Store struct {
	cfg     Config
	log     *slog.Logger
	fsm     *machine.Machine
	barrier coalescer
	space   spaceGuard
	trans   transport
	raft    atomic.Pointer[instance]

	inflight atomic.Int64
	nudge    chan struct{}

	ctx    context.Context // ends with Close; for the store's own goroutines only
	cancel context.CancelFunc
	wg     sync.WaitGroup
	close  sync.Once
	closed error
}

// Open opens or creates the state in Config.Dir. When it returns, every write that was ever
// acknowledged by an only replica can be read; a replica with peers may still be behind them.
// Damage, a second process on the directory and files of a newer version are errors.
func Open(ctx context.Context, cfg Config) (*Store, error) {
	cfg = cfg.withDefaults()
	s := &Store{cfg: cfg, log: cfg.Log, nudge: make(chan struct{}, 1)}
	s.fsm = machine.New(machine.Config{Log: cfg.Log, Retain: cfg.Retain, Now: time.Now})
	s.space.dir, s.space.min = cfg.Dir, cfg.MinFree
	s.ctx, s.cancel = context.WithCancel(context.WithoutCancel(ctx))
	s.barrier.do = s.barrierRound
	if err := s.begin(); err != nil {
		s.cancel()
		return nil, fmt.Errorf("open state %s: %w", cfg.Dir, err)
	}
	s.wg.Go(s.housekeep)
	s.wg.Go(s.lead)
	s.wg.Go(s.nudger)
	s.wg.Go(s.supervise)
	if in := s.instance(); in.alone() {
		ready, stop := context.WithTimeout(ctx, readyTimeout)
		defer stop()
		if err := in.waitLeader(ready); err != nil {
			if ctx.Err() != nil {
				return nil, errors.Join(ctx.Err(), s.Close())
			}
			s.log.Warn("the only replica does not lead yet, writes wait", "err", err)
		}
	}
	return s, nil
}

// begin opens the transport and the stores and starts Raft.
func (s *Store) begin() error {
	s.trans = newTransport(s.cfg)
	st, err := openStores(s.cfg)
	if err != nil {
		return errors.Join(err, s.trans.close())
	}
	if err := s.restore(st); err != nil {
		return errors.Join(err, st.close(), s.trans.close())
	}
	in, err := s.run(st, s.trans)
	if err != nil {
		return errors.Join(err, st.close(), s.trans.close())
	}
	s.raft.Store(in)
	return nil
}

// supervise starts Raft again when its log had an error after which only reading it tells what is
// on disk. The state machine stays: reads notice nothing.
func (s *Store) supervise() {
	for s.ctx.Err() == nil {
		in := s.instance()
		select {
		case <-in.stores.broken():
			s.log.Error("the log failed, Raft is started again", "err", in.stores.disk.Log.Failed())
			s.restart(in)
		case <-s.ctx.Done():
		}
	}
}

const restartEvery = 2 * time.Second

// restart replaces a stopped run of Raft, as soon as the disk lets it.
func (s *Store) restart(old *instance) {
	if err := old.stop(); err != nil {
		s.log.Debug("stop raft", "err", err)
	}
	for s.ctx.Err() == nil {
		st, err := openStores(s.cfg)
		if err == nil {
			var in *instance
			if in, err = s.run(st, s.trans); err == nil {
				s.raft.Store(in)
				old.broadcast()
				return
			}
			err = errors.Join(err, st.close())
		}
		s.log.Error("Raft cannot be started again, writes are refused", "err", err)
		select {
		case <-time.After(restartEvery):
		case <-s.ctx.Done():
		}
	}
}

func (s *Store) instance() *instance { return s.raft.Load() }

// Close stops the replica. Waiting calls return ErrClosed. The directory can be opened again when
// Close has returned.
func (s *Store) Close() error {
	s.close.Do(func() {
		s.fsm.Close()
		if in := s.instance(); in.followed() && in.r.State() == raft.Leader {
			// Handing over takes milliseconds, an election a second.
			_ = in.await(s.ctx, in.r.LeadershipTransfer)
		}
		s.cancel()
		s.barrier.close()
		s.wg.Wait()
		s.closed = errors.Join(s.instance().stop(), s.trans.close())
	})
	return s.closed
}

// Revision is the newest revision applied on this replica; an empty store has revision 1.
func (s *Store) Revision() uint64 { return s.fsm.Revision() }

// View is a consistent snapshot of this replica's state now.
func (s *Store) View() View { return s.fsm.View() }

// ViewAt is the exact state at an old revision: ErrCompacted when it is older than the retained
// history, ErrFuture when it has not happened here yet.
func (s *Store) ViewAt(rev uint64) (View, error) { return s.fsm.ViewAt(rev) }

// Watch returns a watch of all events after a revision. Close it.
func (s *Store) Watch(after uint64) (*Watch, error) { return s.fsm.Watch("", after) }

// WatchPrefix returns a watch of the events after a revision whose key begins with prefix. Writes
// to other keys do not wake it. Close it.
func (s *Store) WatchPrefix(prefix string, after uint64) (*Watch, error) {
	return s.fsm.Watch(prefix, after)
}

// Compact drops the history up to and including a revision; the current state stays.
func (s *Store) Compact(rev uint64) { s.fsm.Compact(rev) }

// WaitRevision waits until the revision is applied on this replica.
func (s *Store) WaitRevision(ctx context.Context, rev uint64) error {
	if s.fsm.Revision() >= rev {
		return nil
	}
	return s.fsm.WaitFor(ctx, rev, 0)
}

// housekeep lets history expire on this replica. It sleeps as long as nothing is kept.
func (s *Store) housekeep() {
	timer := time.NewTimer(s.cfg.Retain.Age)
	defer timer.Stop()
	for {
		select {
		case <-s.ctx.Done():
			return
		case <-timer.C:
		}
		wait := s.cfg.Retain.Age
		if next := s.fsm.Age(); !next.IsZero() {
			wait = max(time.Until(next), time.Second)
		}
		timer.Reset(wait)
	}
}
