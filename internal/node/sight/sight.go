package sight

import (
	"context"
	"sync"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/labels"
	listers "k8s.io/client-go/listers/core/v1"
	"k8s.io/client-go/tools/cache"

	"github.com/podman-swarm/podman-swarm/internal/agent/fence"
	"github.com/podman-swarm/podman-swarm/internal/control/liveness"
	"github.com/podman-swarm/podman-swarm/internal/node/peers"
	"github.com/podman-swarm/podman-swarm/internal/state"
	"github.com/podman-swarm/podman-swarm/internal/state/voters"
)

// Config is where a Counter looks.
type Config struct {
	Nodes   cache.SharedIndexInformer // of this node's API server
	Members func() []peers.Member
	Changed func() <-chan struct{} // of Members
	Status  func() state.Status
}

// slack is how far the clocks of two nodes may be apart.
const slack = 20 * time.Second

// Until is the fence's: where there are more nodes than voters, as long after a takeover as pods that must not
// run twice wait for the end of those of a dead node.
func Until(l state.Lineage, known int) time.Time {
	if len(l.Parents) == 0 || known <= voters.Default().Max {
		return time.Time{}
	}
	return l.Born.Time().Add(liveness.DefaultRules().Replaces(known) + slack)
}

// Counter counts and tells when counting again may give another result.
type Counter struct {
	cfg   Config
	nodes listers.NodeLister

	mu   sync.Mutex
	seen chan struct{}
}

// New returns a Counter.
func New(cfg Config) *Counter {
	return &Counter{cfg: cfg, nodes: listers.NewNodeLister(cfg.Nodes.GetIndexer()), seen: make(chan struct{})}
}

// Seen returns a channel that is closed when Sight may have changed. Take it before looking.
func (c *Counter) Seen() <-chan struct{} {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.seen
}

func (c *Counter) tell() {
	c.mu.Lock()
	defer c.mu.Unlock()
	close(c.seen)
	c.seen = make(chan struct{})
}

// Run tells of changes until ctx ends.
func (c *Counter) Run(ctx context.Context) error {
	registration, err := c.cfg.Nodes.AddEventHandler(cache.ResourceEventHandlerFuncs{
		AddFunc:    func(any) { c.tell() },
		UpdateFunc: func(was, is any) { c.updated(was, is) },
		DeleteFunc: func(any) { c.tell() },
	})
	if err != nil {
		return err
	}
	defer c.cfg.Nodes.RemoveEventHandler(registration) //nolint:errcheck // it was added above
	for {
		changed := c.cfg.Changed()
		c.tell()
		select {
		case <-changed:
		case <-ctx.Done():
			return nil
		}
	}
}

// updated tells of a fence that was put up or taken away; nothing else of a node counts here.
func (c *Counter) updated(was, is any) {
	old, ok := was.(*corev1.Node)
	now, ok2 := is.(*corev1.Node)
	if !ok || !ok2 || fenced(old) != fenced(now) {
		c.tell()
	}
}

func fenced(n *corev1.Node) bool { return n.Annotations[liveness.FencedAnnotation] == "true" }

// Sight counts now.
func (c *Counter) Sight() fence.Sight {
	alive, lineages := map[string]bool{}, map[string]bool{}
	for _, m := range c.cfg.Members() {
		if m.Alive() {
			alive[m.Name] = true
			lineages[m.Meta.Standing.Lineage] = true
		}
	}
	delete(lineages, "") // it has not said yet
	var s fence.Sight
	nodes, err := c.nodes.List(labels.Everything())
	if err != nil {
		return s // never: an indexer
	}
	for _, n := range nodes {
		switch {
		case alive[n.Name]:
			s.Known++
			s.Alive++
		case !fenced(n):
			s.Known++
		}
	}
	st := c.cfg.Status()
	s.Torn = len(lineages) > 1
	s.Until = Until(st.Lineage, s.Known)
	s.Settled = !s.Torn && st.Leader != "" && !st.Joining
	return s
}
