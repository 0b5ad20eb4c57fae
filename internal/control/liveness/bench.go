package liveness

import (
	"context"
	"sync"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/labels"
	listers "k8s.io/client-go/listers/core/v1"
)

// Source is gossip.
type Source interface {
	// Members returns every member that is remembered, this node included.
	Members() []Member
	// Changed returns a channel that is closed at the next change: take it before looking.
	Changed() <-chan struct{}
}

// Member is a node as gossip sees it. A member that is merely suspected is alive.
type Member struct {
	Name  string
	Alive bool
	Since time.Time // when it became so
	// Back is until when a silent member counts as alive all the same: it stopped on purpose and said
	// that it would be back. Zero: it said nothing.
	Back time.Time
}

// Bench gives verdicts on nodes.
type Bench struct {
	rules  Rules
	source Source
	nodes  listers.NodeLister
	now    func() time.Time
	again  chan struct{} // capacity 1

	mu     sync.Mutex
	absent map[string]time.Time // Nodes that gossip has never heard of -> noticed at
	left   map[string]time.Time // nodes without a Node that were asked about -> since when they have none
	sure   time.Time            // since when this side has a majority; zero: it has none
}

// NewBench returns a bench.
func NewBench(rules Rules, source Source, nodes listers.NodeLister, now func() time.Time) *Bench {
	return &Bench{
		rules: rules, source: source, nodes: nodes, now: now, again: make(chan struct{}, 1),
		absent: map[string]time.Time{}, left: map[string]time.Time{},
	}
}

// Verdict judges a node.
func (b *Bench) Verdict(node *corev1.Node) (Verdict, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	now := b.now()
	members, census, err := b.count(now)
	if err != nil {
		return Verdict{}, err
	}
	s, doubt := b.sight(node.Name, members, now)
	if s.Dead {
		s.Sure = b.sure
	}
	s.Fenced = node.Annotations[FencedAnnotation] == "true"
	v := b.rules.Judge(s, census, now)
	if !v.Dead {
		v.Again = doubt
	}
	return v, nil
}

// Departed judges a node that has no Node, as one that was removed, or one whose Node a merge has yet to
// bring: it is dead since then, unless gossip says that it is alive.
func (b *Bench) Departed(name string) (Verdict, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	now := b.now()
	members, census, err := b.count(now)
	if err != nil {
		return Verdict{}, err
	}
	if members[name].Alive {
		delete(b.left, name)
		return Verdict{}, nil
	}
	since, ok := b.left[name]
	if !ok {
		since, b.left[name] = now, now
	}
	return b.rules.Judge(Sighting{Dead: true, Since: since, Sure: b.sure}, census, now), nil
}

// count counts the nodes, and notes since when this side has a majority of them. The caller holds mu.
func (b *Bench) count(now time.Time) (members map[string]Member, census Census, err error) {
	all, err := b.nodes.List(labels.Everything())
	if err != nil {
		return nil, Census{}, err
	}
	members = map[string]Member{}
	for _, m := range b.source.Members() {
		members[m.Name] = m
	}
	known := map[string]bool{}
	for _, n := range all {
		known[n.Name] = true
		delete(b.left, n.Name)
		s, _ := b.sight(n.Name, members, now)
		if !s.Dead {
			census.Alive++
		}
		if !s.Dead || n.Annotations[FencedAnnotation] != "true" {
			census.Known++
		}
	}
	for name := range b.absent {
		if !known[name] {
			delete(b.absent, name)
		}
	}
	if !census.Majority() {
		b.sure = time.Time{}
	} else if b.sure.IsZero() {
		b.sure = now
	}
	return members, census, nil
}

// sight tells what is known of a node. A Node that gossip does not know counts as alive until
// doubt, which is zero for all others.
func (b *Bench) sight(name string, members map[string]Member, now time.Time) (s Sighting, doubt time.Time) {
	if m, ok := members[name]; ok {
		delete(b.absent, name)
		switch {
		case m.Alive || m.Back.IsZero():
			return Sighting{Dead: !m.Alive, Since: m.Since}, time.Time{}
		case now.Before(m.Back):
			return Sighting{}, m.Back
		}
		return Sighting{Dead: true, Since: m.Back}, time.Time{}
	}
	since, ok := b.absent[name]
	if !ok {
		since, b.absent[name] = now, now
	}
	if doubt = since.Add(b.rules.AbsentAfter); now.Before(doubt) {
		return Sighting{}, doubt
	}
	return Sighting{Dead: true, Since: since}, time.Time{}
}

// Review says that something else than gossip may have changed the verdicts on all nodes.
func (b *Bench) Review() {
	select {
	case b.again <- struct{}{}:
	default:
	}
}

// Watch calls f whenever all nodes are to be judged again, and once at the start, until ctx ends.
func (b *Bench) Watch(ctx context.Context, f func()) {
	for {
		changed := b.source.Changed()
		f()
		select {
		case <-changed:
		case <-b.again:
		case <-ctx.Done():
			return
		}
	}
}
