package main

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/watch"

	"github.com/podman-swarm/podman-swarm/test/lab"
)

const (
	// firstOfSwarm is the number of the first host of a swarm that is measured.
	firstOfSwarm = 31
	loadRate     = 200 // writes per second
	loadFor      = 20 * time.Second
	sightings    = 300
	// betweenSightings leaves a write alone: one among many is seen sooner.
	betweenSightings = 50 * time.Millisecond
)

// swarms measures swarms of several nodes, each size on machines of its own.
func (b *bench) swarms(ctx context.Context) error {
	for _, size := range b.sizes {
		if err := b.swarmOf(ctx, size); err != nil {
			return fmt.Errorf("%d nodes: %w", size, err)
		}
	}
	return nil
}

func (b *bench) swarmOf(ctx context.Context, size int) (err error) {
	c, err := lab.NewCluster(b.repo, firstOfSwarm, size, fields(b.hostFlags)...)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, c.Remove(context.WithoutCancel(ctx))) }()
	if err := c.Add(ctx); err != nil {
		return err
	}
	if err := c.Form(ctx); err != nil {
		return err
	}
	if err := sleep(ctx, b.idle); err != nil {
		return err
	}
	if err := b.atRest(ctx, c); err != nil {
		return err
	}
	if size != 3 {
		return nil
	}
	if err := b.acknowledged(ctx, c); err != nil {
		return err
	}
	return b.visible(ctx, c)
}

// atRest measures what a swarm costs that does nothing: traffic of every node, CPU of the leader.
func (b *bench) atRest(ctx context.Context, c *lab.Cluster) error {
	leader, err := c.Leader(ctx, c.Hosts[0])
	if err != nil {
		return err
	}
	agents := leader.Pids("podman-swarm agent")
	if len(agents) != 1 {
		return fmt.Errorf("%d agents run on %s", len(agents), leader.Name)
	}
	const window = 30 * time.Second
	cpu, err := lab.ProcessTime(agents[0])
	if err != nil {
		return err
	}
	before, err := traffic(c)
	if err != nil {
		return err
	}
	if err := sleep(ctx, window); err != nil {
		return err
	}
	after, err := traffic(c)
	if err != nil {
		return err
	}
	now, err := lab.ProcessTime(agents[0])
	if err != nil {
		return err
	}
	var rates []float64
	for i := range after {
		rates = append(rates, float64(after[i]-before[i])/1000/window.Seconds())
	}
	budget := ""
	if len(c.Hosts) == 50 {
		budget = "8 % of a core"
	}
	b.table.add(fmt.Sprintf("idle traffic per node, %d nodes", len(c.Hosts)), median(rates), "kB/s", "", fmt.Sprintf("sent and received; median of the nodes, most %.1f, over %s", slices.Max(rates), window))
	b.table.add(fmt.Sprintf("idle CPU of the leader's agent, %d nodes", len(c.Hosts)), 100*(now-cpu).Seconds()/window.Seconds(), "% of a core", budget, fmt.Sprintf("over %s", window))
	return nil
}

func traffic(c *lab.Cluster) ([]uint64, error) {
	var out []uint64
	for _, h := range c.Hosts {
		n, err := h.Traffic()
		if err != nil {
			return nil, err
		}
		out = append(out, n)
	}
	return out, nil
}

// acknowledged measures writes through all nodes at a fixed rate.
func (b *bench) acknowledged(ctx context.Context, c *lab.Cluster) error {
	load, err := lab.StartLoad(ctx, lab.LoadConfig{Hosts: c.Hosts, Namespace: ns, Name: "bench", Writers: 20, Rate: loadRate, Timeout: 10 * time.Second})
	if err != nil {
		return err
	}
	err = sleep(ctx, loadFor)
	load.Stop()
	if err != nil {
		return err
	}
	if failed := load.Failed(); len(failed) > 0 {
		return fmt.Errorf("%d writes failed, the first: %s", len(failed), failed[0])
	}
	var took []float64
	for _, a := range load.Acks() {
		took = append(took, ms(a.Took))
	}
	note := fmt.Sprintf("%.0f writes/s through all nodes, wanted %d", float64(len(took))/loadFor.Seconds(), loadRate)
	b.table.add("acknowledged write, 3 nodes, p50", median(took), "ms", "", note)
	b.table.add("acknowledged write, 3 nodes, p99", quantile(took, 0.99), "ms", "10 ms", note)
	return nil
}

// visible measures from a write's acknowledgment to the moment when watchers on all nodes have seen it.
func (b *bench) visible(ctx context.Context, c *lab.Cluster) error {
	ctx, cancel := context.WithTimeout(ctx, 5*time.Minute)
	defer cancel()
	g, watching := errgroup.WithContext(ctx)
	seen := newSightings(len(c.Hosts))
	for _, h := range c.Hosts {
		if err := seen.watch(watching, g, h); err != nil {
			return err
		}
	}
	acked := map[int]time.Time{}
	g.Go(func() error {
		for n := range sightings {
			client, err := c.Hosts[n%len(c.Hosts)].API()
			if err != nil {
				return err
			}
			cm := &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Name: fmt.Sprintf("seen-%d", n), Labels: map[string]string{"bench": "seen"}}, Data: map[string]string{"n": strconv.Itoa(n)}}
			if _, err := client.CoreV1().ConfigMaps(ns).Create(watching, cm, metav1.CreateOptions{}); err != nil {
				return err
			}
			acked[n] = time.Now()
			if err := sleep(watching, betweenSightings); err != nil {
				return err
			}
		}
		return nil
	})
	if err := g.Wait(); err != nil {
		return err
	}
	var took []float64
	for n, at := range acked {
		took = append(took, max(0, ms(seen.everywhere[n].Sub(at))))
	}
	b.table.add("write visible on every node, 3 nodes, p50", median(took), "ms", "", fmt.Sprintf("%d writes, %s apart, seen by watchers", sightings, betweenSightings))
	b.table.add("write visible on every node, 3 nodes, p99", quantile(took, 0.99), "ms", "50 ms", "from the acknowledgment to the last watcher")
	return nil
}

// seenWrites notes when the last of the nodes has seen each write.
type seenWrites struct {
	nodes int

	mu         sync.Mutex
	by         map[int]int // write -> how many nodes have seen it
	everywhere map[int]time.Time
}

func newSightings(nodes int) *seenWrites {
	return &seenWrites{nodes: nodes, by: map[int]int{}, everywhere: map[int]time.Time{}}
}

// watch reads events from a node until all writes have been seen there.
func (s *seenWrites) watch(ctx context.Context, g *errgroup.Group, h *lab.Host) error {
	client, err := h.API()
	if err != nil {
		return err
	}
	w, err := client.CoreV1().ConfigMaps(ns).Watch(ctx, metav1.ListOptions{LabelSelector: "bench=seen"})
	if err != nil {
		return err
	}
	g.Go(func() error {
		defer w.Stop()
		here := map[int]bool{}
		for e := range w.ResultChan() {
			cm, ok := e.Object.(*corev1.ConfigMap)
			if !ok || e.Type != watch.Added {
				return fmt.Errorf("%s: a watch of what is only added said %s %v", h.Name, e.Type, e.Object)
			}
			n, err := strconv.Atoi(cm.Data["n"])
			if err != nil {
				return err
			}
			s.saw(n, time.Now())
			if here[n] = true; len(here) == sightings {
				return nil
			}
		}
		return fmt.Errorf("%s: the watch ended after %d of %d writes: %w", h.Name, len(here), sightings, context.Cause(ctx))
	})
	return nil
}

func (s *seenWrites) saw(n int, at time.Time) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.by[n]++; s.by[n] == s.nodes {
		s.everywhere[n] = at
	}
}
