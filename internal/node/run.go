package node

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/podman-swarm/podman-swarm/internal/agent/fence"
	"github.com/podman-swarm/podman-swarm/internal/apiserver"
	"github.com/podman-swarm/podman-swarm/internal/node/lead"
	"github.com/podman-swarm/podman-swarm/internal/node/logs"
	"github.com/podman-swarm/podman-swarm/internal/node/memory"
	"github.com/podman-swarm/podman-swarm/internal/node/pair"
	"github.com/podman-swarm/podman-swarm/internal/node/predecessor"
	"github.com/podman-swarm/podman-swarm/internal/node/preflight"
	"github.com/podman-swarm/podman-swarm/internal/tap"
)

// Run runs a node until ctx ends or a part of it fails. It returns nil when ctx ended it.
func Run(ctx context.Context, cfg Config) (err error) {
	start := time.Now()
	ctx, stop := context.WithCancel(ctx)
	defer stop()
	memory.Tune()
	log := logs.New(cfg.LogLevel)
	n, err := prepare(cfg, log)
	if err != nil {
		return err
	}
	defer n.dir.Close() //nolint:errcheck // the lock ends with the process
	if err := n.whole(); err != nil {
		return err
	}

	// What others may have taken or taken away, before anything is made.
	if err := preflight.PortsFree(ctx, cfg.APIAddr, cfg.BindAddr); err != nil {
		return err
	}
	machine, err := openMachine(ctx, n)
	if err != nil {
		return err
	}
	defer machine.close()
	defer func() { err = machine.abandon(ctx, n, err) }()

	// Who this node is: as it was, or as a swarm that it joins says, or the first of a new one.
	keys, err := n.enlist(ctx)
	if err != nil {
		return err
	}
	// The others, and the truth that all nodes share.
	c, err := openCluster(ctx, n, keys)
	if err != nil {
		return err
	}
	defer c.close()
	// The pod network, which outlives this process.
	network, err := machine.network(ctx, n)
	if err != nil {
		return err
	}
	defer network.close()
	parts, running := errgroup.WithContext(ctx)
	parts.Go(func() error { return c.run(running) })
	if err := c.ready(running); err != nil {
		return errors.Join(withoutCanceled(err), withoutCanceled(parts.Wait()))
	}

	// The API, over the state. It outlives its clients below, so that they can say good-bye.
	streams := pair.New(n.cfg.NodeName)
	api, err := apiserver.New(ctx, n.apiConfig(c, streams, network))
	if err != nil {
		return err
	}
	serving, stopServing := context.WithCancel(context.WithoutCancel(ctx))
	defer stopServing()
	served := make(chan error, 1)
	go func() { served <- api.Run(serving) }()
	select {
	case <-api.Ready():
	case err := <-served:
		return err
	case <-ctx.Done():
		stopServing()
		return <-served
	}
	if err := n.writeKubeconfig(keys); err != nil {
		return err
	}
	log.Info("API is ready", "url", n.localURL(), "took", time.Since(start).Round(time.Millisecond), "kubeconfig", n.dir.File("admin.kubeconfig"))

	// Deciders, on one node at a time, and doers: clients of the API like any other.
	informers := tap.NewSource(api.Informers(), serving.Done())
	lost := c.lost()
	duty := deciders{c: c, api: api, informers: informers, lost: lost, log: log}
	parts.Go(func() error { return lead.While(running, c.store, duty.run) })
	parts.Go(func() error { return network.run(running) })
	around := c.sight(api)
	cutOff := fence.New(fence.Config{
		Sight: around.Sight, Seen: around.Seen, Now: time.Now, File: filepath.Join(n.runDir, "fence"), Log: log,
	})
	parts.Go(func() error { return around.Run(running) })
	parts.Go(func() error { return withoutCanceled(cutOff.Run(running)) })
	parts.Go(func() error { lost.Run(running); return nil })
	parts.Go(func() error {
		return runAgent(running, n, agentParts{c, network, machine, streams, cutOff, predecessor.Agent{Index: lost}, api.Loopback()})
	})
	parts.Go(func() error { return c.serveStreams(running, streams, network) })
	parts.Go(func() error { return c.operate(running, api.Loopback(), stop) })
	parts.Go(func() error { return n.keepKubeconfig(running, keys) })
	parts.Go(func() error { return servePprof(running, cfg.PprofAddr, log) })
	parts.Go(func() error { memory.GiveBack(running, log); return nil })
	parts.Go(func() error {
		select {
		case err := <-served:
			served <- err
			return fmt.Errorf("the API server ended: %w", err)
		case <-running.Done():
			return nil
		}
	})
	err = parts.Wait()
	stopServing()
	return errors.Join(withoutCanceled(err), withoutCanceled(<-served))
}

func withoutCanceled(err error) error {
	if errors.Is(err, context.Canceled) {
		return nil
	}
	return err
}

// rootless tells whether this process may not change the host.
func rootless() bool { return os.Geteuid() != 0 }
