package state

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"sync"
	"sync/atomic"
	"time"

	"github.com/hashicorp/raft"

	"github.com/podman-swarm/podman-swarm/internal/hlc"
	"github.com/podman-swarm/podman-swarm/internal/state/disk"
	"github.com/podman-swarm/podman-swarm/internal/state/engine"
	"github.com/podman-swarm/podman-swarm/internal/state/home"
	"github.com/podman-swarm/podman-swarm/internal/state/lab"
	"github.com/podman-swarm/podman-swarm/internal/state/machine"
	"github.com/podman-swarm/podman-swarm/internal/state/raftnet"
	"github.com/podman-swarm/podman-swarm/internal/state/share"
	"github.com/podman-swarm/podman-swarm/internal/state/space"
	"github.com/podman-swarm/podman-swarm/internal/state/voters"
)

// Config says how to open a Store.
type Config struct {
	// Dir holds everything the store keeps on disk; only this package writes there. Empty: nothing
	// is kept (tests).
	Dir    string
	NodeID string // the node's name
	// Addr is where the other replicas reach this one.
	Addr string
	Log  *slog.Logger
	// Network and Membership connect replicas; both nil makes the only replica there is.
	Network    Network
	Membership Membership
	// Join names the lineage that a replica without state is to follow: it waits until the others
	// take it in. Empty: it begins one. Ignored where there is state.
	Join string
	// Freeze keeps the survivors of a lost majority from going on without it.
	Freeze bool
	// Handing tells entries that are not handed over like others when this replica's lineage ends in
	// another: what this side wrote only because it could not see the other one. Nil: there are none.
	Handing func(key string, value []byte) Handing
	Retain  Retention
	// MinFree is how many bytes the disk must have left for writes to be accepted.
	MinFree uint64
	// Lab is for simulations of whole clusters.
	Lab lab.Lab

	tune func(*raft.Config) // tests: snapshots every few entries
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
	if c.tune == nil {
		c.tune = c.Lab.Tune
	}
	return c
}

// take takes the directory.
func (c Config) take() (*home.Home, error) {
	return home.Take(disk.Config{Dir: c.Dir, Log: c.Log, Segment: c.Lab.Segment, Probe: c.Lab.Disk})
}

// Store is one replica of the state. All methods are safe for concurrent use.
type Store struct {
	cfg     Config
	log     *slog.Logger
	home    *home.Home
	barrier share.Rounds
	space   space.Guard
	turns   share.Turns
	// shown is what is read. It is the machine of the running instance, but for the time in which
	// this replica catches up with another lineage.
	shown atomic.Pointer[machine.Machine]
	raft  atomic.Pointer[engine.Engine]

	present atomic.Bool // Ready has been true
	leaving atomic.Bool
	gone    atomic.Bool // Leave has succeeded: nothing new will be heard here

	damaged atomic.Bool // no instance runs until this replica is made anew

	telling sync.Mutex
	told    Standing // what peers know of this replica

	mu   sync.Mutex
	left voters.Left // asked this leader to be taken out, and when

	ctx    context.Context // ends with Close; for the store's own goroutines only
	cancel context.CancelFunc
	wg     sync.WaitGroup
	close  sync.Once
	closed error
}

// Open opens or creates the state in Config.Dir. When it returns, every write that was ever
// acknowledged by an only replica can be read; a replica with peers may still be behind them: see
// Ready. Damage is an error unless peers hold the state. A second process on the directory and files
// of a newer version are errors.
func Open(ctx context.Context, cfg Config) (*Store, error) {
	cfg = cfg.withDefaults()
	s := &Store{cfg: cfg, log: cfg.Log, left: voters.Left{}}
	s.space.Dir, s.space.Min = cfg.Dir, cfg.MinFree
	s.ctx, s.cancel = context.WithCancel(context.WithoutCancel(ctx))
	s.barrier.Do, s.barrier.Closed = s.barrierRound, ErrClosed
	if err := s.begin(ctx); err != nil {
		s.cancel()
		return nil, fmt.Errorf("open state %s: %w", cfg.Dir, err)
	}
	for _, work := range []func(){s.housekeep, s.lead, s.enrol, s.keep} {
		s.wg.Go(work)
	}
	if in := s.instance(); in.Alone() {
		ready, stop := context.WithTimeout(ctx, readyTimeout)
		defer stop()
		if err := in.WaitLeader(ready); err != nil {
			if ctx.Err() != nil {
				return nil, errors.Join(ctx.Err(), s.Close())
			}
			s.log.Warn("the only replica does not lead yet, writes wait", "err", err)
		}
	}
	return s, nil
}

// begin opens the stores and starts Raft.
func (s *Store) begin(ctx context.Context) (err error) {
	if (s.cfg.Network == nil) != (s.cfg.Membership == nil) || s.cfg.Network != nil && s.cfg.Addr == "" {
		return errors.New("a replica with peers needs a network, an address and a membership")
	}
	if s.home, err = s.cfg.take(); err != nil {
		return err
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, s.home.Close())
		}
	}()
	st, err := s.home.Open()
	if err != nil {
		st, err = s.instead(ctx, err)
	}
	if err != nil {
		return err
	}
	in, err := s.start(st)
	if err != nil {
		return errors.Join(err, st.Close())
	}
	s.damaged.Store(false)
	s.raft.Store(in)
	return nil
}

// found makes stores where there are none: of a new lineage, or empty ones in one that has begun.
func (s *Store) found(join string) (home.Stores, error) {
	next := disk.Current{Lineage: join, Server: newServer(s.cfg)}
	if join != "" {
		return s.home.Begin(next, func(home.Stores) error { return nil })
	}
	next.Lineage = home.RandomName(8)
	m := machine.New(machine.Config{
		Log: s.log, Retain: s.cfg.Retain, Now: s.cfg.Lab.Now, Lineage: machine.Lineage{ID: next.Lineage, Born: hlc.At(s.cfg.Lab.Now())},
	})
	return s.home.Begin(next, func(st home.Stores) error { return st.Fill(m, 1, self(s.cfg, next)) })
}

// start fills the machine, and shows it, or that of the former lineage until it has caught up, and
// runs Raft.
func (s *Store) start(st home.Stores) (*engine.Engine, error) {
	m := newMachine(s.cfg, st.Current.Lineage)
	if err := st.Restore(m); err != nil {
		return nil, err
	}
	show := m
	if st.Current.Former != nil {
		old, err := s.home.Former(st.Current)
		if err == nil {
			show = newMachine(s.cfg, st.Current.Former.Lineage)
			err = errors.Join(old.Restore(show), old.Close())
		}
		if err != nil { // what it held is handed over
			s.log.Warn("the state of the former lineage cannot be shown until this replica has caught up", "err", err)
			show = m
		}
	}
	// What is read never goes back: after a retreat, the machine of before is shown until this one
	// is as far.
	switch shown := s.machine(); {
	case shown == nil:
		s.shown.Store(show)
	case show == m && shown.Revision() <= m.Revision():
		s.shown.Store(m)
		shown.Retire()
	}
	return s.runIn(st, m)
}

// run runs Raft on stores.
func (s *Store) run(st home.Stores, m *machine.Machine, trans *raftnet.Transport) (*engine.Engine, error) {
	c := engine.Config{Log: s.log, Stores: st, Machine: m, Trans: trans, Tune: s.cfg.tune}
	if st.Current.Former != nil {
		c.Reach = st.Current.Former.Reach
	}
	if shown := s.machine(); shown != m {
		c.Reach = max(c.Reach, shown.Revision())
	}
	return engine.Run(s.ctx, c)
}

// transport carries Raft in a lineage.
func (s *Store) transport(cur disk.Current) (*raftnet.Transport, error) {
	n := s.cfg.Network
	if n == nil {
		return raftnet.Solo(), nil
	}
	l, err := n.Listen(cur.Lineage)
	if err != nil {
		return nil, fmt.Errorf("listen for replicas of lineage %s: %w", cur.Lineage, err)
	}
	return raftnet.New(raftnet.NewStream(s.ctx, raftnet.Config{
		Listener: l, Server: cur.Server, Addr: s.cfg.Addr, Where: s.where,
		Dial: func(ctx context.Context, addr string) (net.Conn, error) { return n.Dial(ctx, addr, cur.Lineage) },
	}), s.log), nil
}

func (s *Store) instance() *engine.Engine { return s.raft.Load() }

// machine is what is read now.
func (s *Store) machine() *machine.Machine { return s.shown.Load() }

// Close stops the replica. Waiting calls return ErrClosed. The directory can be opened again when
// Close has returned.
func (s *Store) Close() error {
	s.close.Do(func() {
		s.machine().Close()
		_ = s.HandOver(s.ctx) // a hint: without it an election takes its place
		s.cancel()
		s.barrier.Close()
		s.wg.Wait()
		s.machine().Close()
		in := s.instance()
		in.Machine.Close()
		s.closed = errors.Join(in.Leave(), in.Stop(), s.home.Close())
	})
	return s.closed
}

// Revision is the newest revision applied on this replica; an empty store has revision 1.
func (s *Store) Revision() uint64 { return s.machine().Revision() }

// View is a consistent snapshot of this replica's state now.
func (s *Store) View() View { return s.machine().View() }

// ViewAt is the exact state at an old revision: ErrCompacted when it is older than the retained
// history, ErrFuture when it has not happened here yet.
func (s *Store) ViewAt(rev uint64) (View, error) { return s.machine().ViewAt(rev) }

// Watch returns a watch of all events after a revision. Close it.
func (s *Store) Watch(after uint64) (*Watch, error) { return s.WatchPrefix("", after) }

// WatchPrefix returns a watch of the events after a revision whose key begins with prefix. Writes
// to other keys do not wake it. It ends with ErrCompacted when this replica changes to another
// lineage. Close it.
func (s *Store) WatchPrefix(prefix string, after uint64) (*Watch, error) {
	for {
		if w, err := s.machine().Watch(prefix, after); !errors.Is(err, machine.ErrRetired) {
			return w, err
		}
	}
}

// Compact drops the history up to and including a revision; the current state stays.
func (s *Store) Compact(rev uint64) { s.machine().Compact(rev) }

// WaitRevision waits until the revision is applied on this replica.
func (s *Store) WaitRevision(ctx context.Context, rev uint64) error {
	for {
		m := s.machine()
		if m.Revision() >= rev {
			return nil
		}
		if err := m.WaitFor(ctx, rev, 0); !errors.Is(err, machine.ErrRetired) {
			return err
		}
	}
}

// housekeep lets history expire on this replica. It sleeps as long as nothing is kept.
func (s *Store) housekeep() {
	timer := time.NewTimer(s.cfg.Retain.Age)
	defer timer.Stop()
	warned := false
	for {
		select {
		case <-s.ctx.Done():
			return
		case <-timer.C:
		}
		if err := s.instance().Machine.Stuck(); err != nil && !warned {
			s.log.Warn("this replica's state stands still until this node is upgraded", "err", err)
			warned = true
		}
		wait := s.cfg.Retain.Age
		if next := s.machine().Age(); !next.IsZero() {
			wait = max(time.Until(next), time.Second)
		}
		timer.Reset(wait)
	}
}
