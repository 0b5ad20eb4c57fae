package apistore

import (
	"context"
	"errors"
	"fmt"
	"sort"
	"sync/atomic"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apiserver/pkg/storage"
	"k8s.io/apiserver/pkg/warning"

	"github.com/podman-swarm/podman-swarm/internal/state"
)

// store is the storage.Interface of one resource.
type store struct {
	replica       replica
	coder         *coder
	resource      schema.GroupResource
	prefix        string
	newFunc       func() runtime.Object
	bookmarkEvery time.Duration
	sizes         atomic.Bool
	watchers      watcherSet
}

var _ storage.Interface = (*store)(nil)

// close ends every watch and waits for their goroutines.
func (s *store) close() { s.watchers.close() }

// Versioner implements storage.Interface.
func (s *store) Versioner() storage.Versioner { return versioner() }

func (s *store) prepareKey(key string, recursive bool) (string, error) {
	return storage.PrepareKey(s.prefix, key, recursive)
}

// barrierLimit bounds the wait for the newest state, also for requests without a deadline of their
// own (watches). The store gives up sooner when there is no leader.
const barrierLimit = 30 * time.Second

// barrier makes local memory hold every write that was acknowledged anywhere before the call.
func (s *store) barrier(ctx context.Context) error {
	if err := s.newest(ctx); err != nil {
		return readError(err)
	}
	return nil
}

func (s *store) newest(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, barrierLimit)
	defer cancel()
	return s.replica.Barrier(ctx)
}

// view returns a snapshot that is at least as new as resource version rv asks for: "" is the
// newest anywhere, "0" the newest here. Without a leader nobody can tell what is newest anywhere; then
// what is here answers, with a warning for the user. Nothing can be written in that time either.
func (s *store) view(ctx context.Context, rv string) (state.View, error) {
	wanted, err := versioner().ParseResourceVersion(rv)
	if err != nil {
		return state.View{}, apierrors.NewBadRequest(fmt.Sprintf("invalid resource version: %v", err))
	}
	if rv != "" {
		if view := s.replica.View(); view.Revision() >= wanted {
			return view, nil
		}
	}
	err = s.newest(ctx)
	if errors.Is(err, state.ErrNoLeader) {
		warning.AddWarning(ctx, "", staleWarning)
		err = nil
	}
	if err != nil {
		return state.View{}, readError(err)
	}
	view := s.replica.View()
	if view.Revision() < wanted {
		return view, storage.NewTooLargeResourceVersionError(wanted, view.Revision(), 0)
	}
	return view, nil
}

// Get implements storage.Interface.
func (s *store) Get(ctx context.Context, key string, opts storage.GetOptions, out runtime.Object) error {
	key, err := s.prepareKey(key, false)
	if err != nil {
		return err
	}
	view, err := s.view(ctx, opts.ResourceVersion)
	if err != nil {
		return err
	}
	entry, ok := view.Get(key)
	if !ok {
		if opts.IgnoreNotFound {
			return runtime.SetZeroValue(out)
		}
		return storage.NewKeyNotFoundError(key, 0)
	}
	plain, _, err := s.coder.open(ctx, key, entry.Value)
	if err != nil {
		return storage.NewInternalError(err)
	}
	return s.coder.decode(plain, entry.ModRevision, out)
}

// Create implements storage.Interface.
func (s *store) Create(ctx context.Context, key string, obj, out runtime.Object, ttl uint64) error {
	key, err := s.prepareKey(key, false)
	if err != nil {
		return err
	}
	if rev, err := versioner().ObjectResourceVersion(obj); err == nil && rev != 0 {
		return storage.ErrResourceVersionSetOnCreate
	}
	plain, err := s.coder.encode(obj)
	if err != nil {
		return err
	}
	res, err := s.put(ctx, key, plain, putOptions{ttl: ttl})
	if errors.Is(err, state.ErrConflict) {
		return storage.NewKeyExistsError(key, 0)
	}
	if err != nil {
		return err
	}
	if out == nil {
		return nil
	}
	return s.coder.decode(plain, res.Revision, out)
}

type putOptions struct {
	expect uint64 // revision that must stand; 0 = the key must not exist
	ttl    uint64 // seconds, 0 = for ever
}

// put stores plain under key. A conflict is returned as state.ErrConflict with the entry that
// stands; other errors are ready for users.
func (s *store) put(ctx context.Context, key string, plain []byte, opts putOptions) (state.Result, error) {
	sealed, err := s.coder.seal(ctx, key, plain)
	if err != nil {
		return state.Result{}, err
	}
	w := state.Write{Key: key, Value: sealed, Expect: opts.expect}
	if opts.ttl > 0 {
		// The store counts whole seconds of the clock; no key may expire early.
		w.TTL = int64(opts.ttl) + 1
	}
	return s.apply(ctx, w)
}

func (s *store) apply(ctx context.Context, w state.Write) (state.Result, error) {
	res, err := s.replica.Apply(ctx, w)
	if err != nil && !errors.Is(err, state.ErrConflict) {
		err = stateError(err)
	}
	return res, err
}

// Stats implements storage.Interface.
func (s *store) Stats(context.Context) (storage.Stats, error) {
	prefix, err := s.prepareKey(s.prefix, true)
	if err != nil {
		return storage.Stats{}, err
	}
	view, end := s.replica.View(), prefixEnd(prefix)
	if !s.sizes.Load() {
		return storage.Stats{ObjectCount: int64(view.Count(prefix, end))}, nil
	}
	var stats storage.Stats
	var bytes int64
	view.Ascend(prefix, end, func(e *state.Entry) bool {
		stats.ObjectCount++
		bytes += int64(len(e.Value))
		return true
	})
	if stats.ObjectCount > 0 {
		stats.EstimatedAverageObjectSizeBytes = bytes / stats.ObjectCount
	}
	return stats, nil
}

// EnableResourceSizeEstimation implements storage.Interface. Sizes are counted, not estimated: all
// values are in memory.
func (s *store) EnableResourceSizeEstimation(keys storage.KeysFunc) error {
	if keys == nil {
		return errors.New("KeysFunc cannot be nil")
	}
	if s.sizes.Swap(true) {
		return errors.New("resource size estimation is already enabled")
	}
	return nil
}

// ReadinessCheck implements storage.Interface: memory is always ready.
func (s *store) ReadinessCheck() error { return nil }

// RequestWatchProgress implements storage.Interface: every watch of this resource that asked for
// progress notifications sends one soon.
func (s *store) RequestWatchProgress(context.Context) error {
	s.watchers.notify()
	return nil
}

// GetCurrentResourceVersion implements storage.Interface.
func (s *store) GetCurrentResourceVersion(ctx context.Context) (uint64, error) {
	view, err := s.view(ctx, "")
	if err != nil {
		return 0, err
	}
	if view.Revision() == 0 {
		return 0, errors.New("the current resource version must be greater than 0")
	}
	return view.Revision(), nil
}

// CompactRevision implements storage.Interface: the oldest revision that can still be read, 0 when
// that is the first one. Only a watch cache ever asks, so it is found by asking the store.
func (s *store) CompactRevision() int64 {
	newest := s.replica.View().Revision()
	oldest := sort.Search(int(newest), func(rev int) bool {
		events, err := s.replica.WatchPrefix(s.prefix, uint64(rev))
		if err == nil {
			events.Close()
		}
		return !errors.Is(err, state.ErrCompacted)
	})
	if oldest <= 1 {
		return 0
	}
	return int64(oldest)
}

// prefixEnd returns the first key after all keys that begin with prefix.
func prefixEnd(prefix string) string {
	end := []byte(prefix)
	for i := len(end) - 1; i >= 0; i-- {
		if end[i] < 0xff {
			end[i]++
			return string(end[:i+1])
		}
	}
	return "" // no end: prefix is empty or all 0xff, which no API key is
}
