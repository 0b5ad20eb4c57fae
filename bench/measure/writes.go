package measure

import (
	"context"
	"fmt"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sync/errgroup"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/watch"
	"k8s.io/client-go/kubernetes"
)

// Node is a node of a swarm as its clients see it.
type Node struct {
	Name   string
	Client kubernetes.Interface
}

// Writes measures the writes of a swarm.
type Writes struct {
	Nodes     []Node
	Namespace string

	// Rate is writes per second through all nodes in turn, For how long.
	Rate int
	For  time.Duration
	// Sightings is how many single writes are looked for on every node.
	Sightings int
}

const (
	label = "bench"
	// writers is how many writes may be under way.
	writers = 64
	// betweenSightings leaves a write alone: one among many is seen sooner.
	betweenSightings = 50 * time.Millisecond
	// objects are updated in turn; every tenth write makes a new one.
	objects     = 20
	createEvery = 10
)

// Measure adds the latency of acknowledged writes and the time until a write is visible on every node.
func (w Writes) Measure(ctx context.Context, table *Report) error {
	if err := w.Acknowledged(ctx, table); err != nil {
		return err
	}
	return w.Visible(ctx, table)
}

// Clear removes what was written.
func (w Writes) Clear(ctx context.Context) error {
	return w.maps(0).DeleteCollection(ctx, metav1.DeleteOptions{}, metav1.ListOptions{LabelSelector: label})
}

func (w Writes) maps(n int) mapsClient {
	return w.Nodes[n%len(w.Nodes)].Client.CoreV1().ConfigMaps(w.Namespace)
}

type mapsClient interface {
	Create(ctx context.Context, cm *corev1.ConfigMap, opts metav1.CreateOptions) (*corev1.ConfigMap, error)
	Update(ctx context.Context, cm *corev1.ConfigMap, opts metav1.UpdateOptions) (*corev1.ConfigMap, error)
	DeleteCollection(ctx context.Context, opts metav1.DeleteOptions, list metav1.ListOptions) error
	Watch(ctx context.Context, opts metav1.ListOptions) (watch.Interface, error)
}

func object(name, kind string, n int) *corev1.ConfigMap {
	return &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Name: name, Labels: map[string]string{label: kind}}, Data: map[string]string{"n": strconv.Itoa(n)}}
}

// Acknowledged measures writes at a fixed rate, each from the moment it was due: a swarm that is
// slow is not asked less, and its waiting clients count.
func (w Writes) Acknowledged(ctx context.Context, table *Report) error {
	for i := range objects {
		if _, err := w.maps(i).Create(ctx, object(fmt.Sprintf("load-%d", i), "load", 0), metav1.CreateOptions{}); err != nil {
			return err
		}
	}
	type write struct {
		n   int
		due time.Time
	}
	total := int(float64(w.Rate) * w.For.Seconds())
	queue := make(chan write, total)
	took := make([]float64, total)
	var again atomic.Int64
	g, ctx := errgroup.WithContext(ctx)
	for range writers {
		g.Go(func() error {
			for next := range queue {
				err := w.put(ctx, next.n, next.n)
				if err != nil { // once more, through another node, as a client with a list of servers does
					again.Add(1)
					err = w.put(ctx, next.n, next.n+1)
				}
				if err != nil && !apierrors.IsAlreadyExists(err) {
					return fmt.Errorf("write %d of %d: %w", next.n, total, err)
				}
				took[next.n] = MS(time.Since(next.due))
			}
			return nil
		})
	}
	begin := time.Now()
	g.Go(func() error {
		defer close(queue)
		for n := range total {
			due := begin.Add(time.Duration(n) * time.Second / time.Duration(w.Rate))
			if err := Sleep(ctx, time.Until(due)); err != nil {
				return err
			}
			queue <- write{n, due}
		}
		return nil
	})
	if err := g.Wait(); err != nil {
		return err
	}
	note := fmt.Sprintf("%d writes through all nodes in turn, %.0f/s of %d/s, each from when it was due; %d tried twice", total, float64(total)/time.Since(begin).Seconds(), w.Rate, again.Load())
	table.Add(w.name("acknowledged write", "p50"), Median(took), "ms", "", note)
	table.Add(w.name("acknowledged write", "p99"), Quantile(took, 0.99), "ms", "10 ms", note)
	return nil
}

func (w Writes) name(what, quantile string) string {
	return fmt.Sprintf("%s, %d nodes, %s", what, len(w.Nodes), quantile)
}

func (w Writes) put(ctx context.Context, n, via int) error {
	if n%createEvery == 0 {
		_, err := w.maps(via).Create(ctx, object(fmt.Sprintf("load-new-%d", n), "load", n), metav1.CreateOptions{})
		return err
	}
	_, err := w.maps(via).Update(ctx, object(fmt.Sprintf("load-%d", n%objects), "load", n), metav1.UpdateOptions{})
	return err
}

// Visible measures from a write's acknowledgment to the moment when watchers on all nodes have seen it.
func (w Writes) Visible(ctx context.Context, table *Report) error {
	ctx, cancel := context.WithTimeout(ctx, 5*time.Minute)
	defer cancel()
	g, watching := errgroup.WithContext(ctx)
	seen := &sightings{nodes: len(w.Nodes), wanted: w.Sightings, by: map[int]int{}, everywhere: map[int]time.Time{}}
	for i, n := range w.Nodes {
		events, err := w.maps(i).Watch(watching, metav1.ListOptions{LabelSelector: label + "=seen"})
		if err != nil {
			return fmt.Errorf("%s: %w", n.Name, err)
		}
		g.Go(func() error { return seen.read(watching, n.Name, events) })
	}
	acked := make([]time.Time, w.Sightings)
	g.Go(func() error {
		for n := range acked {
			if _, err := w.maps(n).Create(watching, object(fmt.Sprintf("seen-%d", n), "seen", n), metav1.CreateOptions{}); err != nil {
				return err
			}
			acked[n] = time.Now()
			if err := Sleep(watching, betweenSightings); err != nil {
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
		took = append(took, max(0, MS(seen.everywhere[n].Sub(at))))
	}
	note := fmt.Sprintf("%d writes, %s apart, from the acknowledgment to the last node's watcher", w.Sightings, betweenSightings)
	table.Add(w.name("write visible on every node", "p50"), Median(took), "ms", "", note)
	table.Add(w.name("write visible on every node", "p99"), Quantile(took, 0.99), "ms", "50 ms", note)
	return nil
}

// sightings notes when the last of the nodes has seen each write.
type sightings struct {
	nodes, wanted int

	mu         sync.Mutex
	by         map[int]int // write -> how many nodes have seen it
	everywhere map[int]time.Time
}

// read reads events of a node until all writes have been seen there.
func (s *sightings) read(ctx context.Context, node string, events watch.Interface) error {
	defer events.Stop()
	here := map[int]bool{}
	for e := range events.ResultChan() {
		cm, ok := e.Object.(*corev1.ConfigMap)
		if !ok || e.Type != watch.Added {
			return fmt.Errorf("%s: a watch of what is only added said %s %v", node, e.Type, e.Object)
		}
		n, err := strconv.Atoi(cm.Data["n"])
		if err != nil {
			return err
		}
		s.saw(n, time.Now())
		if here[n] = true; len(here) == s.wanted {
			return nil
		}
	}
	return fmt.Errorf("%s: the watch ended after %d of %d writes: %w", node, len(here), s.wanted, context.Cause(ctx))
}

func (s *sightings) saw(n int, at time.Time) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.by[n]++; s.by[n] == s.nodes {
		s.everywhere[n] = at
	}
}
