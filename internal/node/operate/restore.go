package operate

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/podman-swarm/podman-swarm/internal/backup"
	"github.com/podman-swarm/podman-swarm/internal/state"
	"github.com/podman-swarm/podman-swarm/internal/swarm"
)

// Restore implements swarm.Backups.
func (b *backups) Restore(ctx context.Context, id string, say swarm.Progress) error {
	f, _, err := b.Open(ctx, id)
	if err != nil {
		return err
	}
	defer f.Close()
	return b.RestoreFrom(ctx, f, say)
}

// RestoreFrom implements swarm.BackupFiles: it makes the state of the running swarm that of the
// backup, by ordinary writes, so that every watcher and every node follows.
func (b *backups) RestoreFrom(ctx context.Context, file io.Reader, say swarm.Progress) error {
	c, err := backup.Read(file)
	if errors.Is(err, backup.ErrDamaged) {
		return swarm.Invalid("%v: nothing was changed", err)
	}
	if err != nil {
		return err
	}
	if c.Info.Cluster != b.Keys.Cluster() {
		return swarm.Refused("the backup is of another swarm (%s, this is %s): stop this node and run: podman-swarm restore FILE, in an empty data directory", c.Info.Cluster, b.Keys.Cluster())
	}
	want, err := state.ReadExport(strings.NewReader(string(c.Snapshot)))
	if err != nil {
		return swarm.Invalid("%v: nothing was changed", err)
	}
	if err := b.Store.Barrier(ctx); err != nil {
		return unavailable(err)
	}
	writes := difference(b.Store.View(), want)
	say("backup of %s, revision %d: %d keys differ", c.Info.Created.Format(time.RFC3339), c.Info.Revision, len(writes))
	// Half a restore is worse than none: it goes on when the client has gone.
	return b.applyAll(context.WithoutCancel(ctx), writes, say)
}

// parallel is how many writes are on their way at a time.
const parallel = 16

func (b *backups) applyAll(ctx context.Context, writes []state.Write, say swarm.Progress) error {
	var all sync.WaitGroup
	var mu sync.Mutex
	var errs []error
	next := make(chan state.Write)
	for range parallel {
		all.Go(func() {
			for w := range next {
				_, err := b.Store.Apply(ctx, w)
				if err != nil && !errors.Is(err, state.ErrConflict) { // of a deletion: it is gone already
					mu.Lock()
					errs = append(errs, fmt.Errorf("%s: %w", w.Key, err))
					mu.Unlock()
				}
			}
		})
	}
	for i, w := range writes {
		next <- w
		if (i+1)%1000 == 0 {
			say("%d of %d written", i+1, len(writes))
		}
	}
	close(next)
	all.Wait()
	if len(errs) > 0 {
		return fmt.Errorf("%d of %d keys were not restored, the first: %w: run the restore again", len(errs), len(writes), errs[0])
	}
	say("%d keys written", len(writes))
	return nil
}

// difference lists the writes that make now what want is. What belongs to the swarm itself (members,
// tokens, keys, the journal) stays, as do events.
func difference(now, want state.View) []state.Write {
	var writes []state.Write
	want.Ascend("", "", func(e *state.Entry) bool {
		if !restorable(e) {
			return true
		}
		if cur, ok := now.Get(e.Key); !ok || !slices.Equal(cur.Value, e.Value) {
			writes = append(writes, state.Write{Key: e.Key, Value: e.Value, Expect: state.Any})
		}
		return true
	})
	now.Ascend("", "", func(e *state.Entry) bool {
		if _, ok := want.Get(e.Key); !ok && restorable(e) {
			writes = append(writes, state.Write{Key: e.Key, Delete: true, Expect: state.Any})
		}
		return true
	})
	return writes
}

// ownKeys is where everything is that is not Kubernetes'.
const ownKeys = "/swarm/"

// restorable are objects that do not tell of the past, as events do.
func restorable(e *state.Entry) bool {
	return e.Expires == 0 && !strings.HasPrefix(e.Key, ownKeys)
}
