package operate

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
	"sync"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/podman-swarm/podman-swarm/internal/backup"
	"github.com/podman-swarm/podman-swarm/internal/node/operate/bare"
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
	needed := difference(b.Store.View(), want)
	say("backup of %s, revision %d: %d keys differ", c.Info.Created.Format(time.RFC3339), c.Info.Revision, needed.count())
	// Half a restore is worse than none: it goes on when the client has gone.
	return b.change(context.WithoutCancel(ctx), needed, say)
}

// change makes the changes, as many as can be made.
func (b *backups) change(ctx context.Context, c changes, say swarm.Progress) error {
	var mu sync.Mutex
	aloud := func(format string, args ...any) {
		mu.Lock()
		defer mu.Unlock()
		say(format, args...)
	}
	var errs []error
	// Namespaces first: in one that ends nobody makes anything again.
	errs = append(errs, each(c.namespaces, func(name string) error { return b.endNamespace(ctx, name) })...)
	errs = append(errs, b.applyAll(ctx, c.removals, aloud)...)
	errs = append(errs, b.applyAll(ctx, c.writes, aloud)...)
	if keys := len(c.removals) + len(c.writes); len(errs) == 0 {
		aloud("%d keys written", keys)
	}
	// Pods last: they refer to what was written.
	errs = append(errs, each(c.pods, func(p bare.Change) error { return p.Make(ctx, b.Client, aloud) })...)
	if len(errs) > 0 {
		return fmt.Errorf("%d of %d changes were not made, the first: %w: run the restore again", len(errs), c.count(), errs[0])
	}
	return nil
}

func (b *backups) applyAll(ctx context.Context, writes []state.Write, say swarm.Progress) []error {
	var errs []error
	for i := 0; i < len(writes); i += 1000 {
		if i > 0 {
			say("%d of %d written", i, len(writes))
		}
		errs = append(errs, each(writes[i:min(i+1000, len(writes))], func(w state.Write) error {
			if _, err := b.Store.Apply(ctx, w); err != nil && !errors.Is(err, state.ErrConflict) { // of a deletion: it is gone already
				return fmt.Errorf("%s: %w", w.Key, err)
			}
			return nil
		})...)
	}
	return errs
}

// parallel is how many changes are on their way at a time.
const parallel = 16

// each does something with all items and returns what failed.
func each[T any](items []T, do func(T) error) []error {
	var all sync.WaitGroup
	var mu sync.Mutex
	var errs []error
	next := make(chan T)
	for range min(parallel, len(items)) {
		all.Go(func() {
			for item := range next {
				if err := do(item); err != nil {
					mu.Lock()
					errs = append(errs, err)
					mu.Unlock()
				}
			}
		})
	}
	for _, item := range items {
		next <- item
	}
	close(next)
	all.Wait()
	return errs
}

// endNamespace has a namespace end as if somebody had deleted it: its pods end with their grace.
func (b *backups) endNamespace(ctx context.Context, name string) error {
	err := b.Client.CoreV1().Namespaces().Delete(ctx, name, metav1.DeleteOptions{})
	if err != nil && !apierrors.IsNotFound(err) && !apierrors.IsConflict(err) { // a conflict: it ends already
		return fmt.Errorf("delete namespace %s: %w", name, err)
	}
	return nil
}
