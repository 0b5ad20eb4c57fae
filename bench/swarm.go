package main

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/podman-swarm/podman-swarm/bench/measure"
	"github.com/podman-swarm/podman-swarm/test/lab"
)

const (
	// firstOfSwarm is the number of the first host of a swarm that is measured.
	firstOfSwarm = 31
	loadRate     = 200 // writes per second
	loadFor      = 20 * time.Second
	sightings    = 300
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
	if err := measure.Sleep(ctx, b.idle); err != nil {
		return err
	}
	if err := b.atRest(ctx, c); err != nil {
		return err
	}
	if size != 3 {
		return nil
	}
	return b.writes(ctx, c)
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
	if err := measure.Sleep(ctx, window); err != nil {
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
	b.table.Add(fmt.Sprintf("idle traffic per node, %d nodes", len(c.Hosts)), measure.Median(rates), "kB/s", "", fmt.Sprintf("sent and received; median of the nodes, most %.1f, over %s", slices.Max(rates), window))
	b.table.Add(fmt.Sprintf("idle CPU of the leader's agent, %d nodes", len(c.Hosts)), 100*(now-cpu).Seconds()/window.Seconds(), "% of a core", budget, fmt.Sprintf("over %s", window))
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

func (b *bench) writes(ctx context.Context, c *lab.Cluster) error {
	w := measure.Writes{Namespace: ns, Rate: loadRate, For: loadFor, Sightings: sightings}
	for _, h := range c.Hosts {
		client, err := h.API()
		if err != nil {
			return err
		}
		w.Nodes = append(w.Nodes, measure.Node{Name: h.Name, Client: client})
	}
	return w.Measure(ctx, &b.table)
}
