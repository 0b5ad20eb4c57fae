package sim

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"strconv"
	"sync"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	listers "k8s.io/client-go/listers/core/v1"
	"k8s.io/client-go/tools/cache"

	"github.com/podman-swarm/podman-swarm/internal/control/liveness"
	"github.com/podman-swarm/podman-swarm/internal/gossip"
	"github.com/podman-swarm/podman-swarm/internal/state"
)

// Apps and pods are keys of the store. A Deployment's pods have names of their own, a StatefulSet's
// are numbered, and must not run twice.
const (
	appsPrefix = "/apps/"
	podsPrefix = "/pods/"

	decideEvery = 250 * time.Millisecond
	lookEvery   = 250 * time.Millisecond
	// toleration is how long pods of an unreachable node are left alone (ADR 0010).
	toleration = time.Second
	startTakes = 300 * time.Millisecond
	stopTakes  = 500 * time.Millisecond
)

type app struct {
	Name     string
	Replicas int
	Single   bool // a StatefulSet
}

type pod struct {
	Name, App, UID, Node string
	Single               bool
	Ending, Running      bool
}

// list decodes the values below a prefix.
func list[T any](v state.View, prefix string, f func(e *state.Entry, x T)) {
	listWith(v, prefix, "", f)
}

// listWith decodes only those with a text in them: of a crowd it is most of the work.
func listWith[T any](v state.View, prefix, text string, f func(e *state.Entry, x T)) {
	mark := []byte(text)
	v.Ascend(prefix, prefix[:len(prefix)-1]+"0", func(e *state.Entry) bool {
		var x T
		if bytes.Contains(e.Value, mark) && json.Unmarshal(e.Value, &x) == nil {
			f(e, x)
		}
		return true
	})
}

// put writes a value, if the key still is as it was.
func put(ctx context.Context, s *state.Store, key string, value any, expect uint64) error {
	ctx, cancel := context.WithTimeout(ctx, 2*time.Second)
	defer cancel()
	b, err := json.Marshal(value)
	if err == nil {
		_, err = s.Apply(ctx, state.Write{Key: key, Value: b, Expect: expect})
	}
	return err
}

func remove(ctx context.Context, s *state.Store, key string, expect uint64) error {
	ctx, cancel := context.WithTimeout(ctx, 2*time.Second)
	defer cancel()
	_, err := s.Apply(ctx, state.Write{Key: key, Delete: true, Expect: expect})
	return err
}

// decide places pods while this node leads: the part of Kubernetes' controllers and scheduler.
func (l *life) decide(ctx context.Context) {
	s := l.store.Load()
	for ctx.Err() == nil {
		leads, changed := s.Leads()
		if leads {
			l.decideAsLeader(ctx, s)
			continue
		}
		select {
		case <-changed:
		case <-ctx.Done():
		}
	}
}

func (l *life) decideAsLeader(ctx context.Context, s *state.Store) {
	if s.Barrier(ctx) != nil {
		pause(ctx, decideEvery)
		return
	}
	nodes := cache.NewIndexer(cache.MetaNamespaceKeyFunc, cache.Indexers{})
	d := &decider{
		s: s, l: l, nodes: nodes, evictAt: map[string]time.Time{},
		bench: liveness.NewBench(liveness.DefaultRules(), sightings{l.gossip}, listers.NewNodeLister(nodes), time.Now),
	}
	for ctx.Err() == nil {
		if leads, _ := s.Leads(); !leads {
			return
		}
		d.round(ctx)
		pause(ctx, d.every())
	}
}

// sightings is gossip as the bench wants it.
type sightings struct{ *gossip.Gossip }

// Members implements liveness.Source.
func (g sightings) Members() []liveness.Member {
	var out []liveness.Member
	for _, m := range g.Gossip.Members() {
		out = append(out, liveness.Member{Name: m.Name, Alive: m.State == gossip.Alive, Since: m.Since})
	}
	return out
}

type decider struct {
	l       *life
	s       *state.Store
	nodes   cache.Indexer
	bench   *liveness.Bench
	evictAt map[string]time.Time // tolerations that run
}

// every is how often there is a round: the more pods, the longer one takes.
func (d *decider) every() time.Duration {
	return decideEvery + time.Duration(d.s.View().Count(podsPrefix, "/pods0"))*time.Millisecond/3
}

func (d *decider) round(ctx context.Context) {
	v := d.s.View()
	verdicts, load := d.judge(v), map[string]int{}
	have := map[string]map[string]bool{} // by app
	list(v, podsPrefix, func(e *state.Entry, p pod) {
		verdict, known := verdicts[p.Node]
		switch {
		case p.Ending && (p.Single && verdict.Force || !p.Single && verdict.Dead || !known):
			_ = remove(ctx, d.s, e.Key, e.ModRevision) // or in the next round, as all that follows
		case !p.Ending && verdict.Evict && d.tolerated(p, verdict):
			p.Ending = true
			_ = put(ctx, d.s, e.Key, p, e.ModRevision)
		}
		if !p.Ending || p.Single {
			if have[p.App] == nil {
				have[p.App] = map[string]bool{}
			}
			have[p.App][p.Name] = true
			load[p.Node]++
		}
	})
	list(v, appsPrefix, func(_ *state.Entry, a app) {
		for i := len(have[a.Name]); i < a.Replicas; i++ {
			d.create(ctx, a, have[a.Name], verdicts, load)
		}
		if len(have[a.Name]) > a.Replicas {
			d.scaleDown(ctx, v, a, len(have[a.Name])-a.Replicas)
		}
	})
}

// judge asks the product's bench about every node.
func (d *decider) judge(v state.View) map[string]liveness.Verdict {
	out := map[string]liveness.Verdict{}
	var all []any
	for _, r := range records(v) {
		n := &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: r.Name}}
		if r.Fenced {
			n.Annotations = map[string]string{liveness.FencedAnnotation: "true"}
		}
		all = append(all, n)
	}
	_ = d.nodes.Replace(all, "") // never fails
	for _, n := range all {
		verdict, err := d.bench.Verdict(n.(*corev1.Node))
		if err == nil {
			out[n.(*corev1.Node).Name] = verdict
		}
	}
	return out
}

// tolerated tells whether the pod has borne with its node long enough.
func (d *decider) tolerated(p pod, v liveness.Verdict) bool {
	if !v.Dead {
		delete(d.evictAt, p.UID)
		return false
	}
	at, ok := d.evictAt[p.UID]
	if !ok {
		at = time.Now().Add(toleration)
		d.evictAt[p.UID] = at
	}
	return !time.Now().Before(at)
}

// create puts a new pod on the live node that has least to do.
func (d *decider) create(ctx context.Context, a app, have map[string]bool, verdicts map[string]liveness.Verdict, load map[string]int) {
	best := ""
	for name, v := range verdicts {
		if !v.Dead && (best == "" || load[name] < load[best] || load[name] == load[best] && name < best) {
			best = name
		}
	}
	if best == "" {
		return
	}
	p := pod{App: a.Name, UID: d.l.n.c.fresh("uid"), Node: best, Single: a.Single}
	p.Name = a.Name + "-" + p.UID
	for i := 0; a.Single && i < a.Replicas; i++ {
		if name := fmt.Sprint(a.Name, "-", i); !have[name] {
			p.Name = name
			break
		}
	}
	load[best]++
	_ = put(ctx, d.s, podsPrefix+p.Name, p, 0)
}

// scaleDown ends pods that are too many, as after a merge.
func (d *decider) scaleDown(ctx context.Context, v state.View, a app, surplus int) {
	list(v, podsPrefix, func(e *state.Entry, p pod) {
		if p.App == a.Name && !p.Ending && surplus > 0 {
			surplus--
			p.Ending = true
			_ = put(ctx, d.s, e.Key, p, e.ModRevision)
		}
	})
}

// containers are what runs on a machine. They outlive the agent, but not the machine.
type containers struct {
	mu  sync.Mutex
	uid map[string]string // by the pod's name
}

func (c *containers) all() map[string]string {
	c.mu.Lock()
	defer c.mu.Unlock()
	return maps.Clone(c.uid)
}

// podRuntime runs what the store says is this node's, and says so there: the part of the agent and of
// Podman.
type podRuntime struct{ l *life }

func (r podRuntime) run(ctx context.Context) {
	s := r.l.store.Load()
	if s.Ready(ctx) != nil {
		return
	}
	var seen uint64
	for again := true; ctx.Err() == nil; pause(ctx, lookEvery) {
		// Most rounds find nothing new.
		if v := s.View(); again || v.Revision() != seen {
			seen = v.Revision()
			again = r.round(ctx, s, v)
		}
	}
}

// round makes what runs here what the store wants, and reports whether it must look again without news.
func (r podRuntime) round(ctx context.Context, s *state.Store, v state.View) (again bool) {
	mine, entries := map[string]pod{}, map[string]*state.Entry{}
	var stop []string
	var start []pod
	listWith(v, podsPrefix, strconv.Quote(r.l.n.name), func(e *state.Entry, p pod) {
		if p.Node == r.l.n.name {
			mine[p.Name], entries[p.Name] = p, e
			again = again || p.Single // the fence is no news
		}
	})
	for name, uid := range r.l.n.pods.all() {
		if p, ok := mine[name]; !ok || p.UID != uid || p.Ending || p.Single && r.l.fence.Cut() {
			stop = append(stop, name)
		}
	}
	r.stop(ctx, stop)
	now := r.l.n.pods.all()
	for name, p := range mine {
		if _, runs := now[name]; !runs && !p.Ending && !r.held(p) {
			start = append(start, p)
		}
	}
	r.start(ctx, start)
	now = r.l.n.pods.all()
	for name, p := range mine {
		e := entries[name]
		_, runs := now[name]
		var err error
		switch {
		case p.Ending && !runs:
			err = remove(ctx, s, e.Key, e.ModRevision)
		case !p.Ending && p.Running != runs:
			p.Running = runs
			err = put(ctx, s, e.Key, p, e.ModRevision)
		}
		again = again || err != nil
	}
	return again || len(stop) > 0
}

// held tells whether a pod must not be started now.
func (r podRuntime) held(p pod) bool { return p.Single && r.l.fence.Hold() }

func (r podRuntime) start(ctx context.Context, all []pod) {
	if len(all) == 0 {
		return
	}
	pause(ctx, startTakes)
	pods := &r.l.n.pods
	pods.mu.Lock()
	defer pods.mu.Unlock()
	for _, p := range all {
		// The fence may have come down meanwhile.
		if !r.l.over.Load() && ctx.Err() == nil && !r.held(p) {
			pods.uid[p.Name] = p.UID
			r.l.n.c.started(r.l.n, p)
		}
	}
}

func (r podRuntime) stop(ctx context.Context, names []string) {
	if len(names) == 0 {
		return
	}
	pause(ctx, stopTakes)
	pods := &r.l.n.pods
	pods.mu.Lock()
	defer pods.mu.Unlock()
	for _, name := range names {
		if !r.l.over.Load() && ctx.Err() == nil {
			delete(pods.uid, name)
			r.l.n.c.ended(r.l.n, name)
		}
	}
}

// die is the machine's end.
func (c *containers) die(n *node) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for name := range c.uid {
		n.c.ended(n, name)
	}
	c.uid = map[string]string{}
}
