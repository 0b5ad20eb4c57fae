package machine

import "github.com/google/btree"

// expiryTree orders the entries that expire by time, so that the leader finds the next one without
// looking at the others. Entries are shared with the main tree.
type expiryTree struct {
	t *btree.BTreeG[*Entry]
}

func newExpiryTree() *expiryTree {
	return &expiryTree{t: btree.NewG(degree, func(a, b *Entry) bool {
		if a.Expires != b.Expires {
			return a.Expires < b.Expires
		}
		return a.Key < b.Key
	})}
}

// add reports whether the entry is now the first to expire.
func (x *expiryTree) add(e *Entry) bool {
	if e.Expires == 0 {
		return false
	}
	x.t.ReplaceOrInsert(e)
	first, _ := x.t.Min()
	return first == e
}

func (x *expiryTree) remove(e *Entry) {
	if e.Expires != 0 {
		x.t.Delete(e)
	}
}

// due returns up to limit entries that expire at or before the time, in order, and the expiry of
// the first one after those (0: none).
func (x *expiryTree) due(unix int64, limit int) (due []*Entry, next int64) {
	x.t.Ascend(func(e *Entry) bool {
		if e.Expires > unix || len(due) == limit {
			next = e.Expires
			return false
		}
		due = append(due, e)
		return true
	})
	return due, next
}
