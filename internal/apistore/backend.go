package apistore

import (
	"context"
	"errors"
	"strings"
	"sync"
	"time"

	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apiserver/pkg/features"
	"k8s.io/apiserver/pkg/registry/generic"
	"k8s.io/apiserver/pkg/storage"
	"k8s.io/apiserver/pkg/storage/storagebackend"
	"k8s.io/apiserver/pkg/storage/storagebackend/factory"
	"k8s.io/apiserver/pkg/storage/value"
	"k8s.io/apiserver/pkg/storage/value/encrypt/identity"
	utilfeature "k8s.io/apiserver/pkg/util/feature"
	"k8s.io/client-go/tools/cache"

	"github.com/podman-swarm/podman-swarm/internal/state"
)

// bookmarkEvery is how often a watch that allows bookmarks learns of a revision at which nothing
// of its own happened.
const bookmarkEvery = time.Minute

// replica is what this package needs of *state.Store.
type replica interface {
	Apply(ctx context.Context, w state.Write) (state.Result, error)
	Barrier(ctx context.Context) error
	View() state.View
	ViewAt(rev uint64) (state.View, error)
	WatchPrefix(prefix string, after uint64) (*state.Watch, error)
}

// Backend makes the storage of every API resource out of one replicated store.
type Backend struct {
	replica       replica
	bookmarkEvery time.Duration
}

// New returns a Backend over s. The caller keeps ownership of s and closes it after the API
// server has stopped.
func New(s *state.Store) *Backend {
	return &Backend{replica: s, bookmarkEvery: bookmarkEvery}
}

// RESTOptions returns a getter that gives what inner gives, with the storage of every resource
// replaced by this backend.
func (b *Backend) RESTOptions(inner generic.RESTOptionsGetter) generic.RESTOptionsGetter {
	return restOptions{inner: inner, backend: b}
}

type restOptions struct {
	inner   generic.RESTOptionsGetter
	backend *Backend
}

// GetRESTOptions implements generic.RESTOptionsGetter.
func (r restOptions) GetRESTOptions(gr schema.GroupResource, example runtime.Object) (generic.RESTOptions, error) {
	opts, err := r.inner.GetRESTOptions(gr, example)
	if err != nil {
		return opts, err
	}
	opts.Decorator = r.backend.decorate
	// The poll is one goroutine per resource that feeds a gauge; a node has no use for it.
	opts.CountMetricPollPeriod = 0
	return opts, nil
}

// decorate is a generic.StorageDecorator. The key, attribute and index functions exist for a watch
// cache, which we do not have.
func (b *Backend) decorate(
	config *storagebackend.ConfigForResource,
	resourcePrefix string,
	_ func(obj runtime.Object) (string, error),
	newFunc func() runtime.Object,
	_ func() runtime.Object,
	_ storage.AttrFunc,
	_ storage.IndexerFuncs,
	_ *cache.Indexers,
) (storage.Interface, factory.DestroyFunc, error) {
	unsafeDeletion := utilfeature.DefaultFeatureGate.Enabled(features.AllowUnsafeMalformedObjectDeletion)
	s, err := b.newStore(storeConfig{
		codec:       config.Codec,
		transformer: config.Transformer,
		resource:    config.GroupResource,
		prefix:      resourcePrefix,
		newFunc:     newFunc,
		markCorrupt: unsafeDeletion,
	})
	if err != nil {
		return nil, nil, err
	}
	// The registry calls a resource's destroy function once per subresource.
	destroy := sync.OnceFunc(s.close)
	if unsafeDeletion {
		return &corruptReporter{Interface: s, resource: config.GroupResource}, destroy, nil
	}
	return s, destroy, nil
}

type storeConfig struct {
	codec       runtime.Codec
	transformer value.Transformer // nil: plain, and refusing encrypted values
	resource    schema.GroupResource
	prefix      string // "/pods"
	newFunc     func() runtime.Object
	markCorrupt bool // tell unreadable values apart from other errors
}

func (b *Backend) newStore(c storeConfig) (*store, error) {
	if !strings.HasPrefix(c.prefix, "/") || c.prefix == "/" {
		return nil, errors.New("resource prefix must be / followed by a name, not " + c.prefix)
	}
	if c.transformer == nil {
		c.transformer = identity.NewEncryptCheckTransformer()
	}
	return &store{
		replica:       b.replica,
		coder:         &coder{codec: c.codec, transformer: c.transformer, markCorrupt: c.markCorrupt},
		resource:      c.resource,
		prefix:        c.prefix,
		newFunc:       c.newFunc,
		bookmarkEvery: b.bookmarkEvery,
		watchers:      watcherSet{running: map[*watcher]struct{}{}},
	}, nil
}
