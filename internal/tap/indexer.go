package tap

import (
	"maps"
	"reflect"

	"k8s.io/client-go/tools/cache"
)

// GetIndexer returns the base's cache.
func (i *informer) GetIndexer() cache.Indexer {
	return indexer{Indexer: i.SharedIndexInformer.GetIndexer(), source: i.tap.source}
}

// AddIndexers adds the indexes the informer does not have yet.
func (i *informer) AddIndexers(indexers cache.Indexers) error {
	return i.GetIndexer().AddIndexers(indexers)
}

// An indexer is an informer's cache whose set of indexes is guarded by the source.
type indexer struct {
	cache.Indexer
	source *Source
}

// GetIndexers returns a copy of the set.
func (x indexer) GetIndexers() cache.Indexers {
	x.source.indexes.Lock()
	defer x.source.indexes.Unlock()
	return maps.Clone(x.Indexer.GetIndexers())
}

// AddIndexers adds the indexes that are missing. An index cannot be removed, so an earlier
// borrower's is used again; the base refuses another function under a known name.
func (x indexer) AddIndexers(indexers cache.Indexers) error {
	x.source.indexes.Lock()
	defer x.source.indexes.Unlock()
	have := x.Indexer.GetIndexers()
	missing := cache.Indexers{}
	for name, index := range indexers {
		if old, ok := have[name]; !ok || !sameCode(old, index) {
			missing[name] = index
		}
	}
	if len(missing) == 0 {
		return nil
	}
	return x.Indexer.AddIndexers(missing)
}

// sameCode tells whether two functions are the same code. Closures made by the same line are, which
// is meant: upstream's index functions depend on nothing but the object.
func sameCode(a, b cache.IndexFunc) bool {
	return reflect.ValueOf(a).Pointer() == reflect.ValueOf(b).Pointer()
}
