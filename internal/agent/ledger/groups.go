package ledger

import (
	"sync"

	"k8s.io/apimachinery/pkg/types"
)

// Group is a pod in Podman.
type Group struct {
	ID   string
	Boot string // in which it was made
}

// Groups remembers which pods have a pod in Podman.
type Groups struct {
	mu sync.Mutex
	m  map[types.UID]Group
}

// NewGroups returns an empty one.
func NewGroups() *Groups { return &Groups{m: map[types.UID]Group{}} }

// Get returns the Podman pod of a pod.
func (g *Groups) Get(uid types.UID) (Group, bool) {
	g.mu.Lock()
	defer g.mu.Unlock()
	x, ok := g.m[uid]
	return x, ok
}

// Add notes one that was made or found.
func (g *Groups) Add(uid types.UID, x Group) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.m[uid] = x
}

// Remove forgets one.
func (g *Groups) Remove(uid types.UID) {
	g.mu.Lock()
	defer g.mu.Unlock()
	delete(g.m, uid)
}

// UIDs returns the pods that have one.
func (g *Groups) UIDs() []types.UID {
	g.mu.Lock()
	defer g.mu.Unlock()
	out := make([]types.UID, 0, len(g.m))
	for uid := range g.m {
		out = append(out, uid)
	}
	return out
}
