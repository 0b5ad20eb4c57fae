package lab

import (
	"context"
	"fmt"
	"slices"
	"strconv"
	"sync"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"
)

// createEvery is how often a writer makes a new object instead of counting its own up: a new one
// must be there at the end, where a count only must not have gone back.
const createEvery = 10

// LoadConfig says who writes what.
type LoadConfig struct {
	Hosts     []*Host // written through in turn, the next one again when one fails
	Namespace string
	Name      string        // of the load: it begins the names of its objects
	Writers   int           // each has one write under way
	Rate      float64       // writes per second of all together; 0: as many as possible
	Timeout   time.Duration // of one attempt
	// Shared lets the loads of this name's peers write the same objects: their names do not begin
	// with the load's, so that the two sides of a partition collide.
	Shared bool
	// Faithful lets each writer write through one host only, tries again included: what a host
	// acknowledges then does not wait for others that are silent.
	Faithful bool
}

// Ack is a write that was acknowledged.
type Ack struct {
	At      time.Time
	Took    time.Duration // of the attempt that succeeded
	Via     string        // host
	Retried bool
}

// Load writes ConfigMaps, records what was acknowledged, and tries a failed write once more,
// through another node, as a client with a list of servers does, or through its own.
type Load struct {
	cfg     LoadConfig
	clients []*kubernetes.Clientset
	stop    context.CancelFunc
	done    sync.WaitGroup

	mu     sync.Mutex
	acks   []Ack
	counts map[string]int  // object -> the highest acknowledged count
	made   map[string]bool // objects whose creation was acknowledged

	failed  []string // writes that failed twice, with both attempts
	retried []string // those that succeeded the second time, with the first
}

// StartLoad begins to write.
func StartLoad(ctx context.Context, cfg LoadConfig) (*Load, error) {
	l := &Load{cfg: cfg, counts: map[string]int{}, made: map[string]bool{}}
	for _, h := range cfg.Hosts {
		rc, err := h.Config()
		if err != nil {
			return nil, err
		}
		c, err := kubernetes.NewForConfig(patient(rc, cfg.Timeout))
		if err != nil {
			return nil, err
		}
		l.clients = append(l.clients, c)
	}
	ctx, l.stop = context.WithCancel(ctx)
	for i := range cfg.Writers {
		l.done.Go(func() { l.write(ctx, i) })
	}
	return l, nil
}

func patient(cfg *rest.Config, timeout time.Duration) *rest.Config {
	cfg = rest.CopyConfig(cfg)
	cfg.Timeout = timeout
	return cfg
}

// Stop ends the writing and waits for the last answers.
func (l *Load) Stop() {
	l.stop()
	l.done.Wait()
}

// Count is how many writes were acknowledged so far.
func (l *Load) Count() int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return len(l.acks)
}

// Acks are the acknowledged writes in the order of their answers.
func (l *Load) Acks() []Ack {
	l.mu.Lock()
	defer l.mu.Unlock()
	return slices.SortedFunc(slices.Values(l.acks), func(a, b Ack) int { return a.At.Compare(b.At) })
}

// Failed are the writes that failed twice, each with when, where and why.
func (l *Load) Failed() []string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return slices.Clone(l.failed)
}

// Retried are the writes that failed once, each with when, where and why.
func (l *Load) Retried() []string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return slices.Clone(l.retried)
}

// Gap is the longest time in [from, to] without an acknowledged write through a host; "" asks for
// any host.
func (l *Load) Gap(host string, from, to time.Time) time.Duration {
	last, gap := from, time.Duration(0)
	for _, a := range l.Acks() {
		if host != "" && a.Via != host || a.At.Before(from) || a.At.After(to) {
			continue
		}
		gap, last = max(gap, a.At.Sub(last)), a.At
	}
	return max(gap, to.Sub(last))
}

// write is one writer. Its n-th write goes through the n-th host from its own on, or all through its own.
func (l *Load) write(ctx context.Context, id int) {
	var tick <-chan time.Time
	if l.cfg.Rate > 0 {
		t := time.NewTicker(time.Duration(float64(l.cfg.Writers) / l.cfg.Rate * float64(time.Second)))
		defer t.Stop()
		tick = t.C
	}
	for n := 1; ctx.Err() == nil; n++ {
		if tick != nil {
			select {
			case <-tick:
			case <-ctx.Done():
				return
			}
		}
		l.once(ctx, id, n)
	}
}

func (l *Load) once(ctx context.Context, id, n int) {
	name := fmt.Sprintf("%s-%d", l.cfg.Name, id)
	if l.cfg.Shared {
		name = fmt.Sprintf("shared-%d", id)
	}
	fresh := n%createEvery == 0
	if fresh {
		name = fmt.Sprintf("%s-%d-%d", l.cfg.Name, id, n)
	}
	cm := &corev1.ConfigMap{
		ObjectMeta: metav1.ObjectMeta{Name: name, Labels: map[string]string{"load": l.cfg.Name}},
		Data:       map[string]string{"n": strconv.Itoa(n), "by": l.cfg.Name},
	}
	failure := name + "=" + strconv.Itoa(n) + ":"
	for attempt := range 2 {
		via := (id + n + attempt) % len(l.clients)
		if l.cfg.Faithful {
			via = id % len(l.clients)
		}
		begin := time.Now()
		err := put(ctx, l.clients[via], l.cfg.Namespace, cm, fresh)
		if err == nil {
			l.record(name, n, fresh, Ack{time.Now(), time.Since(begin), l.cfg.Hosts[via].Name, attempt > 0})
			if attempt > 0 {
				l.fail(&l.retried, failure)
			}
			return
		}
		if ctx.Err() != nil { // we were told to stop: neither acknowledged nor refused
			return
		}
		failure += fmt.Sprintf(" %s through %s, after %v: %v;", begin.Format(time.StampMilli), l.cfg.Hosts[via].Name, time.Since(begin).Round(time.Millisecond), err)
	}
	l.fail(&l.failed, failure)
}

func (l *Load) fail(list *[]string, failure string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	*list = append(*list, failure)
}

// put creates, or counts up. A retry may find that its first attempt had succeeded unheard.
func put(ctx context.Context, c kubernetes.Interface, ns string, cm *corev1.ConfigMap, fresh bool) error {
	maps := c.CoreV1().ConfigMaps(ns)
	if !fresh {
		_, err := maps.Update(ctx, cm, metav1.UpdateOptions{})
		if !apierrors.IsNotFound(err) {
			return err
		}
	}
	_, err := maps.Create(ctx, cm, metav1.CreateOptions{})
	if !apierrors.IsAlreadyExists(err) {
		return err
	}
	if fresh {
		return nil
	}
	_, err = maps.Update(ctx, cm, metav1.UpdateOptions{})
	return err
}

func (l *Load) record(name string, n int, fresh bool, a Ack) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.acks = append(l.acks, a)
	if fresh {
		l.made[name] = true
	} else {
		l.counts[name] = max(l.counts[name], n)
	}
}

// Version is one value that an object of a load had.
type Version struct {
	Name, By string
	N        int
}

// VersionOf reads what a load wrote into an object.
func VersionOf(cm *corev1.ConfigMap) Version {
	n, _ := strconv.Atoi(cm.Data["n"])
	return Version{cm.Name, cm.Data["by"], n}
}

// Lost compares what was acknowledged with what a host has now, and with the versions that a merge
// has overwritten: those were not lost, they are in the journal.
func (l *Load) Lost(ctx context.Context, h *Host, overwritten []Version) ([]string, error) {
	c, err := h.API()
	if err != nil {
		return nil, err
	}
	list, err := c.CoreV1().ConfigMaps(l.cfg.Namespace).List(ctx, metav1.ListOptions{LabelSelector: "load"})
	if err != nil {
		return nil, err
	}
	kept := map[string]int{} // object -> the highest count of ours that is stored or in the journal
	for _, cm := range list.Items {
		overwritten = append(overwritten, VersionOf(&cm))
	}
	for _, v := range overwritten {
		if v.By == l.cfg.Name {
			kept[v.Name] = max(kept[v.Name], v.N)
		}
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	var lost []string
	for name, n := range l.counts {
		if kept[name] < n {
			lost = append(lost, fmt.Sprintf("%s: acknowledged %d of %s, kept %d", name, n, l.cfg.Name, kept[name]))
		}
	}
	for name := range l.made {
		if kept[name] == 0 {
			lost = append(lost, fmt.Sprintf("%s: its creation was acknowledged", name))
		}
	}
	slices.Sort(lost)
	return lost, nil
}
