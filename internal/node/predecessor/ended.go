package predecessor

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/podman-swarm/podman-swarm/internal/state"
	"github.com/podman-swarm/podman-swarm/internal/state/journal"
)

// EndedPrefix is where end notices are kept; the ID of the journal's record follows. A notice outlives
// its record, so nothing accumulates. All have the same value: two sides that both write one agree.
const EndedPrefix = "/swarm/ended/"

const (
	// retry is how long to wait after the store could not be watched.
	retry = 100 * time.Millisecond
	// notices is how many notices are written at a time: they share commits.
	notices = 16
)

func ended(v state.View, l Loss) bool {
	_, ok := v.Get(EndedPrefix + l.ID)
	return ok
}

// Tell writes the notices of this node's losses of which nothing runs. It is to be called again when
// Changed, when something has ended here, and after an error: some could not be written.
func (x *Index) Tell(ctx context.Context, runs func(uid string) bool) error {
	return x.write(ctx, x.open(func(l Loss) bool { return l.Node == x.cfg.Node && !runs(l.UID) }))
}

// End writes the notices of all losses of a node: it has had the time to stop them, or is off.
func (x *Index) End(ctx context.Context, node string) error {
	return x.write(ctx, x.open(func(l Loss) bool { return l.Node == node }))
}

func (x *Index) write(ctx context.Context, losses []Loss) error {
	// Not errgroup's context: one that cannot be written keeps no other from it.
	var work errgroup.Group
	work.SetLimit(notices)
	for _, l := range losses {
		work.Go(func() error {
			_, err := x.cfg.Store.Apply(ctx, state.Write{
				Key: EndedPrefix + l.ID, Value: []byte("ended"), TTL: int64(journal.Age / time.Second),
			})
			if err != nil && !errors.Is(err, state.ErrConflict) { // somebody else has said so
				return fmt.Errorf("say that pod UID %s, which %s lost in a merge, has ended on %s: %w", l.UID, l.Key, l.Node, err)
			}
			if err == nil {
				x.cfg.Log.Info("a pod that was lost in a merge has ended", "key", l.Key, "uid", l.UID, "node", l.Node)
			}
			return nil
		})
	}
	return work.Wait()
}

// Run keeps the promise of Changed until ctx ends or the store is closed.
func (x *Index) Run(ctx context.Context) {
	var parts sync.WaitGroup
	parts.Go(func() { x.listen(ctx, journal.Prefix, x.news) })
	parts.Go(func() { x.listen(ctx, EndedPrefix, func() bool { return true }) })
	parts.Wait()
}

// news tells whether losses came or went since it was asked last: most records are of other things.
func (x *Index) news() bool {
	x.mu.Lock()
	defer x.mu.Unlock()
	if err := x.refresh(); err != nil || x.changes == x.told {
		return false
	}
	x.told = x.changes
	return true
}

// listen broadcasts changes below a prefix, those that matter.
func (x *Index) listen(ctx context.Context, prefix string, matter func() bool) {
	for ctx.Err() == nil {
		w, err := x.cfg.Store.WatchPrefix(prefix, x.cfg.Store.View().Revision())
		if err == nil {
			x.broadcast() // whatever happened before
			for err == nil {
				if _, _, err = w.Next(ctx, nil); err == nil && matter() {
					x.broadcast()
				}
			}
			w.Close()
			continue
		}
		if errors.Is(err, state.ErrClosed) {
			return
		}
		timer := time.NewTimer(retry)
		select {
		case <-timer.C:
		case <-ctx.Done():
			timer.Stop()
		}
	}
}
