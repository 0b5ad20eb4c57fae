package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/podman-swarm/podman-swarm/bench/measure"
)

// idleFull are the idle figures with all pods running.
func (s *scale) idleFull(ctx context.Context) error {
	size := fmt.Sprintf("%d nodes, %d pods", s.nodes, s.nodes*s.perNode)
	if err := s.idle(ctx, size); err != nil {
		return err
	}
	var rss, anon []float64
	for _, a := range s.living() {
		u, err := measure.ProcessUse(a.pid())
		if err != nil {
			return err
		}
		rss, anon = append(rss, u.RSS), append(anon, u.Anon)
	}
	s.table.Add("memory of a node, RSS, "+size, measure.Median(rss), "MB", "", fmt.Sprintf("median; least %.0f, most %.0f; the program's pages are shared by all here", slices.Min(rss), slices.Max(rss)))
	s.table.Add("memory of a node, anonymous, "+size, measure.Median(anon), "MB", "", fmt.Sprintf("median; least %.0f, most %.0f", slices.Min(anon), slices.Max(anon)))
	return nil
}

// idle measures what a swarm costs that does nothing.
func (s *scale) idle(ctx context.Context, size string) error {
	say("%s: rest for %s, then measure for %s", size, s.settle, s.window)
	if err := measure.Sleep(ctx, s.settle); err != nil {
		return err
	}
	leader, err := s.leader(ctx)
	if err != nil {
		return err
	}
	noise, err := s.listen()
	if err != nil {
		return err
	}
	before, err := loopback()
	if err != nil {
		return err
	}
	if err := measure.Sleep(ctx, s.window); err != nil {
		return err
	}
	after, err := loopback()
	if err != nil {
		return err
	}
	used, busy, err := noise.since()
	if err != nil {
		return err
	}
	budget, note := "", fmt.Sprintf("over %s; %s", s.window, busy)
	if now, err := s.leader(ctx); err != nil || now != leader {
		note += "; another leads now" // a machine this busy starves its nodes
	}
	if len(s.living()) == 50 {
		budget = "8 % of a core"
	}
	s.table.Add("idle CPU of the leader, "+size, used.of(leader), "% of a core", budget, note)
	s.table.Add("idle CPU of another node, "+size, used.median(leader), "% of a core", "", fmt.Sprintf("median; most %.1f; %s", used.most(leader), note))
	// What one node sends another receives: each counts it.
	nodes := float64(len(s.living())) * s.window.Seconds() / 2
	s.table.Add("idle traffic per node, "+size, float64(after.bytes-before.bytes)/nodes/1000, "kB/s", "", "sent and received, mean of all nodes")
	s.table.Add("idle packets per node, "+size, float64(after.packets-before.packets)/nodes, "/s", "", "the same")
	name := strings.NewReplacer(", ", "-", " ", "-").Replace(size)
	other := s.living()[slices.IndexFunc(s.living(), func(a *agent) bool { return a != leader })]
	return errors.Join(<-s.profile(ctx, "idle-leader-"+name, leader, s.window), <-s.profile(ctx, "idle-other-"+name, other, s.window))
}

// noise is what the agents and everything else had used of the processors at a moment.
type noise struct {
	s       *scale
	at      time.Time
	machine time.Duration
	agents  map[*agent]time.Duration
}

func (s *scale) listen() (n noise, err error) {
	n = noise{s: s, at: time.Now(), agents: map[*agent]time.Duration{}}
	for _, a := range s.living() {
		if n.agents[a], err = measure.ProcessTime(a.pid()); err != nil {
			return n, err
		}
	}
	n.machine, err = measure.MachineTime()
	return n, err
}

// usage is percent of a core per agent.
type usage map[*agent]float64

// since returns what was used since then, and in words what others used, of whom this program is one.
func (n noise) since() (usage, string, error) {
	now, err := n.s.listen()
	if err != nil {
		return nil, "", err
	}
	window, used, ours := now.at.Sub(n.at), usage{}, time.Duration(0)
	for a, t := range now.agents {
		used[a] = 100 * (t - n.agents[a]).Seconds() / window.Seconds()
		ours += t - n.agents[a]
	}
	return used, measure.Busy(now.machine-n.machine, ours, window), nil
}

func (u usage) of(a *agent) float64 { return u[a] }

func (u usage) others(leader *agent) []float64 {
	var out []float64
	for a, v := range u {
		if a != leader {
			out = append(out, v)
		}
	}
	return out
}

func (u usage) median(leader *agent) float64 { return measure.Median(u.others(leader)) }

func (u usage) most(leader *agent) float64 { return slices.Max(u.others(leader)) }

// counters are those of the loopback device, which only the nodes use while this program is quiet.
type counters struct{ bytes, packets uint64 }

func loopback() (counters, error) {
	var c counters
	data, err := os.ReadFile("/proc/self/net/dev")
	if err != nil {
		return c, err
	}
	_, line, found := strings.Cut(string(data), "lo:")
	if !found {
		return c, errors.New("read /proc/self/net/dev: no loopback device")
	}
	_, err = fmt.Sscan(line, &c.bytes, &c.packets)
	return c, err
}

func get(ctx context.Context, url string) ([]byte, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return nil, err
	}
	res, err := http.DefaultClient.Do(req)
	if err != nil {
		return nil, err
	}
	defer res.Body.Close()
	if res.StatusCode != http.StatusOK {
		return nil, fmt.Errorf("%s: %s", url, res.Status)
	}
	return io.ReadAll(res.Body)
}
