package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/podman-swarm/podman-swarm/bench/measure"
	"github.com/podman-swarm/podman-swarm/internal/swarm"
)

// scale is one run.
type scale struct {
	bin, out, profiles string
	nodes, perNode     int
	settle, window     time.Duration
	rest               []int
	rate               int
	keep               bool

	dir    string
	agents []*agent // in the order of joining; the killed ones too
	table  measure.Report
}

const (
	documents  = "openapi" // below a data directory
	writeNodes = 3         // the size at which writes are measured
	writeTime  = 20 * time.Second
	sightings  = 300
	ns         = metav1.NamespaceDefault
)

// grow begins a swarm and has nodes join one by one.
func (s *scale) grow(ctx context.Context) error {
	if err := s.first(ctx); err != nil {
		return err
	}
	token, err := s.token(ctx)
	if err != nil {
		return err
	}
	var took []float64
	for size := 2; size <= s.nodes; size++ {
		t, err := s.join(ctx, size, token)
		if err != nil {
			return err
		}
		took = append(took, measure.MS(t))
		say("node %d is Ready and a member after %s", size, t.Round(time.Millisecond))
		if size == writeNodes && s.rate > 0 {
			if err := s.writes(ctx); err != nil {
				return err
			}
		}
		if slices.Contains(s.rest, size) {
			if err := s.idle(ctx, fmt.Sprintf("%d nodes", size)); err != nil {
				return err
			}
		}
	}
	s.table.Add(fmt.Sprintf("join of one node, %d nodes", s.nodes), measure.Median(took), "ms", "", fmt.Sprintf("median, worst %.0f ms; from exec to Ready and voter or replica", slices.Max(took)))
	s.table.Add(fmt.Sprintf("join of node %d", s.nodes), took[len(took)-1], "ms", "5000 ms", "the same, the last one")
	return nil
}

// first starts the node that begins the swarm, and waits for the documents that it builds.
func (s *scale) first(ctx context.Context) error {
	a, err := s.start(1)
	if err != nil {
		return err
	}
	if err := a.connect(ctx); err != nil {
		return err
	}
	return a.wait(ctx, "done with its OpenAPI documents", func(context.Context) bool {
		parts, _ := filepath.Glob(filepath.Join(a.dir, documents, "*", "v[23]"))
		return len(parts) == 2
	})
}

// join returns how long a newcomer takes from its start until it is Ready and a member, as the first node sees it.
func (s *scale) join(ctx context.Context, i int, token string) (time.Duration, error) {
	begin := time.Now()
	a, err := s.start(i, "--join", s.agents[0].addr+":"+peerPort, "--join-token", token)
	if err != nil {
		return 0, err
	}
	err = a.wait(ctx, "Ready", func(ctx context.Context) bool {
		n, err := s.agents[0].client.CoreV1().Nodes().Get(ctx, a.name, metav1.GetOptions{})
		return err == nil && slices.ContainsFunc(n.Status.Conditions, func(c corev1.NodeCondition) bool {
			return c.Type == corev1.NodeReady && c.Status == corev1.ConditionTrue
		})
	})
	if err != nil {
		return 0, err
	}
	err = a.wait(ctx, "a voter or replica", func(ctx context.Context) bool {
		m, err := s.agents[0].members(ctx)
		return err == nil && slices.ContainsFunc(m.Members, func(m swarm.Member) bool { return m.Name == a.name && m.Role != "" })
	})
	if err != nil {
		return 0, err
	}
	took := time.Since(begin)
	return took, a.connect(ctx)
}

// members is the swarm as a node sees it.
func (a *agent) members(ctx context.Context) (swarm.Status, error) {
	var status swarm.Status
	data, err := a.client.RESTClient().Get().AbsPath(swarm.Prefix + "status").DoRaw(ctx)
	if err == nil {
		err = json.Unmarshal(data, &status)
	}
	return status, err
}

// living are the agents that run.
func (s *scale) living() []*agent {
	return slices.DeleteFunc(slices.Clone(s.agents), func(a *agent) bool { return !a.alive() })
}

// leader waits until one is known.
func (s *scale) leader(ctx context.Context) (leader *agent, err error) {
	living := s.living()
	if len(living) == 0 {
		return nil, errors.New("no agent runs any more")
	}
	err = living[0].wait(ctx, "told of a leader", func(ctx context.Context) bool {
		status, err := living[0].members(ctx)
		i := slices.IndexFunc(living, func(a *agent) bool { return a.name == status.Leader })
		if err != nil || i < 0 {
			return false
		}
		leader = living[i]
		return true
	})
	return leader, err
}

func (s *scale) writes(ctx context.Context) error {
	say("%d writes/s for %s", s.rate, writeTime)
	leader, err := s.leader(ctx)
	if err != nil {
		return err
	}
	w := measure.Writes{Namespace: ns, Rate: s.rate, For: writeTime, Sightings: sightings}
	for _, a := range s.agents {
		w.Nodes = append(w.Nodes, measure.Node{Name: a.name, Client: a.client})
	}
	noise, err := s.listen()
	if err != nil {
		return err
	}
	profiled := s.profile(ctx, "writes-leader", leader, writeTime-time.Second)
	syncing, stop := context.WithCancel(ctx)
	defer stop()
	var syncs []float64
	probed := make(chan error, 1)
	go func() {
		var err error
		syncs, err = measure.Syncs(syncing, s.dir)
		probed <- err
	}()
	err = w.Acknowledged(ctx, &s.table)
	stop()
	if err := errors.Join(err, <-probed, <-profiled); err != nil {
		return err
	}
	s.table.Add("sync of the disk meanwhile, p99", measure.Quantile(syncs, 0.99), "ms", "", fmt.Sprintf("2 kB and fdatasync; p50 %.1f, worst %.0f; a write takes two", measure.Median(syncs), slices.Max(syncs)))
	used, busy, err := noise.since()
	if err != nil {
		return err
	}
	s.table.Add("CPU of the leader, 3 nodes, writes", used.of(leader), "% of a core", "", fmt.Sprintf("others %.0f, %s", used.median(leader), busy))
	return errors.Join(w.Visible(ctx, &s.table), w.Clear(ctx))
}

// profile fetches a profile of an agent in the background.
func (s *scale) profile(ctx context.Context, name string, a *agent, over time.Duration) <-chan error {
	done := make(chan error, 1)
	if s.profiles == "" {
		done <- nil
		return done
	}
	go func() {
		done <- errors.Join(
			fetch(ctx, fmt.Sprintf("http://%s:6060/debug/pprof/profile?seconds=%d", a.addr, int(over.Seconds())), filepath.Join(s.profiles, name+".cpu")),
			fetch(ctx, fmt.Sprintf("http://%s:6060/debug/pprof/heap", a.addr), filepath.Join(s.profiles, name+".heap")),
			fetch(ctx, fmt.Sprintf("http://%s:6060/debug/pprof/goroutine?debug=1", a.addr), filepath.Join(s.profiles, name+".goroutines")))
	}()
	return done
}

func fetch(ctx context.Context, url, file string) error {
	data, err := get(ctx, url)
	if err != nil {
		return err
	}
	if err := os.MkdirAll(filepath.Dir(file), 0o755); err != nil {
		return err
	}
	return os.WriteFile(file, data, 0o644)
}
