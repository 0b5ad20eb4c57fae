package sim

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	listers "k8s.io/client-go/listers/core/v1"
	"k8s.io/client-go/tools/cache"

	"github.com/podman-swarm/podman-swarm/internal/agent/fence"
	"github.com/podman-swarm/podman-swarm/internal/control/liveness"
	"github.com/podman-swarm/podman-swarm/internal/gossip"
	"github.com/podman-swarm/podman-swarm/internal/node/predecessor"
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
	writers    = 8 // of a decider at a time, as upstream's eviction
	// cutTakes is the longest that it takes to stop pods of a node that is cut off (ADR 0010).
	cutTakes = fence.StopWithin + 2*time.Second
)

type app struct {
	Name     string
	Replicas int
	Single   bool // a StatefulSet
	// Stops is how long its pods take to stop; 0: stopTakes.
	Stops time.Duration `json:",omitempty"`
}

type pod struct {
	Name, App, UID, Node string
	Single               bool
	Ending, Running      bool
	Stops                time.Duration `json:",omitempty"`
}

// readPod is what package predecessor knows of a stored pod.
func readPod(_ state.View, key string, value []byte) (predecessor.Pod, bool) {
	var p pod
	if !strings.HasPrefix(key, podsPrefix) || json.Unmarshal(value, &p) != nil {
		return predecessor.Pod{}, false
	}
	return predecessor.Pod{UID: p.UID, Node: p.Node, Single: p.Single}, true
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
		s: s, l: l, nodes: nodes, evictAt: map[string]time.Time{}, slots: make(chan struct{}, writers),
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
	slots   chan struct{}
	work    sync.WaitGroup
}

// every is how often there is a round: the more pods, the longer one takes.
func (d *decider) every() time.Duration {
	return decideEvery + time.Duration(d.s.View().Count(podsPrefix, "/pods0"))*time.Millisecond/3
}

// write makes one write of a round, several at a time, as upstream's controllers do; what fails is done in a
// later round.
func (d *decider) write(f func() error) {
	d.slots <- struct{}{}
	d.work.Go(func() {
		_ = f()
		<-d.slots
	})
}

func (d *decider) round(ctx context.Context) {
	defer d.work.Wait()
	v := d.s.View()
	verdicts, load := d.judge(v), map[string]int{}
	d.endLost(ctx, verdicts)
	have := map[string]map[string]bool{} // by app
	list(v, podsPrefix, func(e *state.Entry, p pod) {
		verdict, known := verdicts[p.Node]
		switch {
		case p.Ending && (p.Single && verdict.Force || !p.Single && verdict.Dead || !known):
			d.write(func() error { return remove(ctx, d.s, e.Key, e.ModRevision) })
		case !p.Ending && verdict.Evict && d.tolerated(p, verdict):
			p.Ending = true
			d.write(func() error { return put(ctx, d.s, e.Key, p, e.ModRevision) })
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

// endLost says of pods that were lost in a merge that they have ended, where that is certain: the part of
// the liveness controller.
func (d *decider) endLost(ctx context.Context, verdicts map[string]liveness.Verdict) {
	for _, name := range d.l.lost.Nodes() {
		v, known := verdicts[name]
		if !known {
			v, _ = d.bench.Departed(name) // a lister over an indexer never fails
		}
		if v.Force {
			ctx, cancel := context.WithTimeout(ctx, 2*time.Second)
			_ = d.l.lost.End(ctx, name) // or in the next round
			cancel()
		}
	}
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
	p := pod{App: a.Name, UID: d.l.n.c.fresh("uid"), Node: best, Single: a.Single, Stops: a.Stops}
	p.Name = a.Name + "-" + p.UID
	for i := 0; a.Single && i < a.Replicas; i++ {
		if name := fmt.Sprint(a.Name, "-", i); !have[name] {
			p.Name = name
			break
		}
	}
	load[best]++
	d.write(func() error { return put(ctx, d.s, podsPrefix+p.Name, p, 0) })
}

// scaleDown ends pods that are too many, as after a merge.
func (d *decider) scaleDown(ctx context.Context, v state.View, a app, surplus int) {
	list(v, podsPrefix, func(e *state.Entry, p pod) {
		if p.App == a.Name && !p.Ending && surplus > 0 {
			surplus--
			p.Ending = true
			d.write(func() error { return put(ctx, d.s, e.Key, p, e.ModRevision) })
		}
	})
}

// containers are what runs on a machine. They outlive the agent, but not the machine.
type containers struct {
	mu    sync.Mutex
	uid   map[string]string        // by the pod's name
	stops map[string]time.Duration // how long they take, where it is not stopTakes
}

func (c *containers) all() map[string]string {
	c.mu.Lock()
	defer c.mu.Unlock()
	return maps.Clone(c.uid)
}

// runs tells whether anything of a pod runs here.
func (c *containers) runs(uid string) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, one := range c.uid {
		if one == uid {
			return true
		}
	}
	return false
}

// podRuntime runs what the store says is this node's, and says so there: the part of the agent and of
// Podman.
type podRuntime struct {
	l *life

	mu       sync.Mutex
	stopping map[string]bool // by name
}

func (r *podRuntime) run(ctx context.Context) {
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
			try, cancel := context.WithTimeout(ctx, 2*time.Second)
			again = r.l.lost.Tell(try, r.l.n.pods.runs) != nil || again
			cancel()
		}
	}
}

// round makes what runs here what the store wants, and reports whether it must look again without news.
func (r *podRuntime) round(ctx context.Context, s *state.Store, v state.View) (again bool) {
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
func (r *podRuntime) held(p pod) bool {
	return p.Single && (r.l.fence.Hold() || r.l.lost.Wait(podsPrefix+p.Name, p.UID, r.l.n.pods.runs) != "")
}

func (r *podRuntime) start(ctx context.Context, all []pod) {
	if len(all) == 0 {
		return
	}
	pause(ctx, startTakes)
	all = slices.DeleteFunc(all, r.held) // the fence may have come down meanwhile
	pods := &r.l.n.pods
	pods.mu.Lock()
	defer pods.mu.Unlock()
	for _, p := range all {
		if !r.l.over.Load() && ctx.Err() == nil {
			pods.uid[p.Name] = p.UID
			if pods.stops == nil {
				pods.stops = map[string]time.Duration{}
			}
			pods.stops[p.Name] = p.Stops
			r.l.n.c.started(r.l.n, p)
		}
	}
}

// stop has pods stopped, each in its own time.
func (r *podRuntime) stop(ctx context.Context, names []string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, name := range names {
		if !r.stopping[name] {
			r.stopping[name] = true
			r.l.work.Go(func() { r.end(ctx, name) })
		}
	}
}

func (r *podRuntime) end(ctx context.Context, name string) {
	defer func() {
		r.mu.Lock()
		defer r.mu.Unlock()
		delete(r.stopping, name)
	}()
	pods := &r.l.n.pods
	pods.mu.Lock()
	until := time.Now().Add(max(pods.stops[name], stopTakes))
	pods.mu.Unlock()
	for rest := time.Until(until); rest > 0 && ctx.Err() == nil; rest = time.Until(until) {
		changed, cut := r.l.fence.Changed(), r.l.fence.Cut()
		if cut && rest > cutTakes {
			rest = cutTakes
			until = time.Now().Add(rest)
		}
		wait, cancel := context.WithTimeout(ctx, rest)
		select {
		case <-changed:
		case <-wait.Done():
		}
		cancel()
	}
	pods.mu.Lock()
	defer pods.mu.Unlock()
	if !r.l.over.Load() && ctx.Err() == nil {
		delete(pods.uid, name)
		r.l.n.c.ended(r.l.n, name)
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
