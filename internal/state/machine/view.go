package machine

// version is one revision's tree. It is never changed once published.
type version struct {
	rev  uint64
	tree *tree
	used bool // read since the cache was aged last
}

// View is a consistent snapshot of the store at one revision. It costs nothing to hold for a
// moment; held for long it keeps that revision's entries in memory. The zero View is empty.
type View struct {
	v *version
}

// Revision is the revision the view shows.
func (v View) Revision() uint64 {
	if v.v == nil {
		return 0
	}
	return v.v.rev
}

// Get returns the entry of a key.
func (v View) Get(key string) (*Entry, bool) {
	if v.v == nil {
		return nil, false
	}
	it, ok := v.v.tree.Get(item{key: key})
	return it.entry, ok
}

// Ascend calls fn for the entries of [from, end) in key order until fn returns false. An empty end
// means no upper bound.
func (v View) Ascend(from, end string, fn func(*Entry) bool) {
	if v.v == nil {
		return
	}
	each := func(it item) bool { return fn(it.entry) }
	if end == "" {
		v.v.tree.AscendGreaterOrEqual(item{key: from}, each)
		return
	}
	v.v.tree.AscendRange(item{key: from}, item{key: end}, each)
}

// Count is the number of keys in [from, end). It visits each of them.
func (v View) Count(from, end string) int {
	if v.v != nil && from == "" && end == "" {
		return v.v.tree.Len()
	}
	n := 0
	v.Ascend(from, end, func(*Entry) bool { n++; return true })
	return n
}

// View returns the newest version. The clone is made once per revision and only when asked for.
func (f *Machine) View() View {
	if v := f.current.Load(); v != nil {
		return View{v}
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	return View{f.head()}
}

// head is View with the lock held.
func (f *Machine) head() *version {
	v := f.current.Load()
	if v == nil {
		v = &version{rev: f.rev.Load(), tree: f.live.Clone()}
		f.current.Store(v)
	}
	return v
}

// ViewAt makes the version of an old revision by undoing, on a copy-on-write clone of the nearest
// newer version at hand, the events since. So the past costs no memory beyond the event window,
// which has to be there for watches anyway, and a few hundred nanoseconds per event when asked for;
// the pages of one list share the cached result.
func (f *Machine) ViewAt(rev uint64) (View, error) {
	if v := f.current.Load(); v != nil && v.rev == rev {
		return View{v}, nil
	}
	f.mu.Lock()
	switch {
	case rev > f.rev.Load():
		f.mu.Unlock()
		return View{}, ErrFuture
	case rev < f.hist.base:
		f.mu.Unlock()
		return View{}, ErrCompacted
	}
	from := f.views.nearest(rev, f.head())
	if from.rev == rev {
		f.mu.Unlock()
		return View{from}, nil
	}
	v := &version{rev: rev, tree: from.tree.Clone(), used: true}
	undo := append([]Event(nil), f.hist.since(rev)[:from.rev-rev]...)
	f.mu.Unlock()

	for i := len(undo) - 1; i >= 0; i-- {
		if prev := undo[i].Prev; prev != nil {
			v.tree.ReplaceOrInsert(item{key: prev.Key, entry: prev})
		} else {
			v.tree.Delete(item{key: undo[i].Key})
		}
	}
	f.mu.Lock()
	f.views.add(v)
	f.mu.Unlock()
	return View{v}, nil
}

// viewCache keeps the few old versions that were asked for lately. Guarded by Machine.mu.
type viewCache struct {
	versions []*version
}

const maxCachedViews = 8

// nearest returns the version closest above rev, starting from the newest one.
func (c *viewCache) nearest(rev uint64, best *version) *version {
	for _, v := range c.versions {
		if v.rev >= rev && v.rev <= best.rev {
			best = v
			v.used = true
		}
	}
	return best
}

func (c *viewCache) add(v *version) {
	if len(c.versions) == maxCachedViews {
		c.versions = append(c.versions[:0], c.versions[1:]...)
	}
	c.versions = append(c.versions, v)
}

// age drops what lies before the window and what nobody read since the last call.
func (c *viewCache) age(base uint64) {
	keep := c.versions[:0]
	for _, v := range c.versions {
		if v.used && v.rev >= base {
			v.used = false
			keep = append(keep, v)
		}
	}
	clear(c.versions[len(keep):])
	c.versions = keep
}
