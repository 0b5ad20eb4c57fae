package predecessor

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"sync"

	"github.com/podman-swarm/podman-swarm/internal/state"
	"github.com/podman-swarm/podman-swarm/internal/state/journal"
	"github.com/podman-swarm/podman-swarm/internal/state/machine"
)

// Store is the replica that the journal is in; *state.Store is one.
type Store interface {
	View() state.View
	WatchPrefix(prefix string, after uint64) (*state.Watch, error)
	Apply(ctx context.Context, w state.Write) (state.Result, error)
}

// Pod is what counts of a stored pod.
type Pod struct {
	UID, Node string
	Single    bool // it must not run twice
	Over      bool // it has ended, and is kept for its status
}

// Loss is a pod that a merge took from the API, and that may run on its node all the same.
type Loss struct {
	ID  string // of the journal's record
	Key string // of the pod, and of what took its place
	Pod
}

// Config is what an Index needs.
type Config struct {
	Node  string // this node
	Store Store
	// Pod reads what is stored at a key; false when it is no pod.
	Pod func(v state.View, key string, value []byte) (Pod, bool)
	Log *slog.Logger
}

// Index holds the losses of the journal, so that the journal is read once and not for every question.
// Its methods may be called from any goroutine.
type Index struct {
	cfg Config

	mu      sync.Mutex
	watch   *state.Watch // of the journal, from what is in the index; nil: the index is to be built
	buf     []state.Event
	byKey   map[string][]Loss
	keys    map[string]string // of the losses, by ID
	changed chan struct{}

	changes, told uint64 // of the losses: counted, and when it was last broadcast
}

// New returns an Index that has not read anything yet.
func New(cfg Config) *Index {
	return &Index{cfg: cfg, buf: make([]state.Event, 0, 128), changed: make(chan struct{})}
}

// Changed returns a channel that is closed when Wait or Nodes may give another answer, or there may be
// something to Tell: take it before looking. It takes Run.
func (x *Index) Changed() <-chan struct{} {
	x.mu.Lock()
	defer x.mu.Unlock()
	return x.changed
}

func (x *Index) broadcast() {
	x.mu.Lock()
	defer x.mu.Unlock()
	close(x.changed)
	x.changed = make(chan struct{})
}

// Wait tells why a pod of this node must not be started, in one line for a user; empty: it may be. runs
// tells whether anything of a pod of this node may run; such a predecessor needs no notice to have ended.
func (x *Index) Wait(key, uid string, runs func(uid string) bool) string {
	var losses []Loss
	v, err := x.look(func() { losses = slices.Clone(x.byKey[key]) })
	if err != nil {
		return "waits until this node can read which pods it replaced in a merge: " + err.Error()
	}
	// What this node has been told of its pods may be older than the journal.
	if e, ok := v.Get(key); !ok {
		return "not started: the cluster has it no more"
	} else if now, ok := x.cfg.Pod(v, key, e.Value); ok && (now.UID != uid || now.Node != x.cfg.Node) {
		return "not started: another pod has taken its place"
	}
	for _, l := range losses {
		here := l.Node == x.cfg.Node
		if here && (l.UID == uid || !runs(l.UID)) || ended(v, l) {
			continue
		}
		why := fmt.Sprintf("waits until pod UID %s, which it replaced in a merge, has ended on %s", l.UID, l.Node)
		if !here {
			why += fmt.Sprintf("; if %s is off: psctl node fence %s", l.Node, l.Node)
		}
		return why
	}
	return ""
}

// Nodes are those with losses that nobody has said to have ended.
func (x *Index) Nodes() []string {
	var out []string
	for _, l := range x.open(func(Loss) bool { return true }) {
		out = append(out, l.Node)
	}
	slices.Sort(out)
	return slices.Compact(out)
}

// open are the losses without a notice; none while the store is being closed.
func (x *Index) open(match func(Loss) bool) []Loss {
	var out []Loss
	v, err := x.look(func() {
		for _, losses := range x.byKey {
			out = append(out, losses...)
		}
	})
	if err != nil {
		return nil
	}
	return slices.DeleteFunc(out, func(l Loss) bool { return !match(l) || ended(v, l) })
}

// look brings the index up to now and has f read it. The view it returns is not older.
func (x *Index) look(f func()) (state.View, error) {
	x.mu.Lock()
	defer x.mu.Unlock()
	if err := x.refresh(); err != nil {
		return state.View{}, err
	}
	f()
	return x.cfg.Store.View(), nil
}

// past is a context that has ended: what is there is taken, and nothing is waited for.
type past struct{ context.Context }

// Done implements context.Context.
func (past) Done() <-chan struct{} {
	done := make(chan struct{})
	close(done)
	return done
}

// Err implements context.Context.
func (past) Err() error { return context.Canceled }

// refresh takes in what happened to the journal. The caller holds mu.
func (x *Index) refresh() error {
	for {
		if x.watch == nil {
			if err := x.build(); err != nil {
				return err
			}
		}
		events, _, err := x.watch.Next(past{}, x.buf)
		switch {
		case err == nil:
			for i := range events {
				x.take(&events[i])
			}
		case errors.Is(err, context.Canceled):
			return nil
		default: // this replica follows another lineage, or the journal changed faster than was asked
			x.watch.Close()
			x.watch = nil
		}
	}
}

// build reads the whole journal. ErrClosed: the store is.
func (x *Index) build() error {
	for {
		v := x.cfg.Store.View()
		w, err := x.cfg.Store.WatchPrefix(journal.Prefix, v.Revision())
		if errors.Is(err, state.ErrFuture) || errors.Is(err, state.ErrCompacted) {
			continue // it changed to another lineage in between
		}
		if err != nil {
			return fmt.Errorf("watch the conflict journal: %w", err)
		}
		x.watch, x.byKey, x.keys = w, map[string][]Loss{}, map[string]string{}
		x.changes++
		for c, err := range machine.Conflicts(v) {
			x.add(v, c, err)
		}
		return nil
	}
}

func (x *Index) take(ev *state.Event) {
	if ev.Entry != nil {
		c, err := journal.Decode(ev.Key, ev.Entry.Value)
		x.add(x.cfg.Store.View(), c, err)
		return
	}
	id := ev.Key[len(journal.Prefix):]
	key, ok := x.keys[id]
	if !ok {
		return
	}
	delete(x.keys, id)
	if x.byKey[key] = slices.DeleteFunc(x.byKey[key], func(l Loss) bool { return l.ID == id }); len(x.byKey[key]) == 0 {
		delete(x.byKey, key)
	}
	x.changes++
}

// add enters a record if it is a loss: of a pod that may run on, where the merge kept something else.
func (x *Index) add(v state.View, c *journal.Conflict, err error) {
	if err != nil {
		x.cfg.Log.Warn("a record of the conflict journal is not understood", "err", err)
		return
	}
	if x.keys[c.ID] != "" {
		return
	}
	lost, ok := x.cfg.Pod(v, c.Key, c.Lost.Value) // a deletion has no value
	if !ok || !lost.Single || lost.Over || lost.Node == "" {
		return
	}
	kept, ok := x.cfg.Pod(v, c.Key, c.Kept.Value)
	if ok && kept.UID == lost.UID && kept.Node == lost.Node {
		return // only what was said of it was lost
	}
	x.keys[c.ID] = c.Key
	x.byKey[c.Key] = append(x.byKey[c.Key], Loss{ID: c.ID, Key: c.Key, Pod: lost})
	x.changes++
}
