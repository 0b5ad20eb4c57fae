package node

import (
	"context"
	"errors"
	"fmt"
	"os"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/podman-swarm/podman-swarm/internal/apiserver"
	"github.com/podman-swarm/podman-swarm/internal/control"
	"github.com/podman-swarm/podman-swarm/internal/pki"
	"github.com/podman-swarm/podman-swarm/internal/schedule"
	"github.com/podman-swarm/podman-swarm/internal/state"
	"github.com/podman-swarm/podman-swarm/internal/tap"
)

// Run runs a node until ctx ends or a part of it fails. It returns nil when ctx ended it.
func Run(ctx context.Context, cfg Config) error {
	start := time.Now()
	tuneMemory()
	log := newLog(cfg.LogLevel)
	n, err := prepare(cfg, log)
	if err != nil {
		return err
	}
	defer n.dir.close() //nolint:errcheck // the lock ends with the process

	// What others may have taken or taken away, before anything is made.
	if err := portFree(ctx, cfg.APIAddr); err != nil {
		return err
	}
	podman, err := openPodman(ctx, n)
	if err != nil {
		return err
	}
	defer podman.Close() //nolint:errcheck // a service that stays leaves by itself when idle

	// The truth: keys and the replicated state, on this node's disk.
	keys, err := pki.Open(n.dir.file("pki"))
	if err != nil {
		return err
	}
	store, err := state.Open(ctx, state.Config{Dir: n.dir.file("state"), NodeID: cfg.NodeName, Log: log.With("part", "state")})
	if err != nil {
		return err
	}
	defer store.Close() //nolint:errcheck // everything acknowledged is on disk already

	// The pod network, which outlives this process.
	network, err := startNetwork(ctx, n)
	if err != nil {
		return err
	}
	defer network.close()

	// The API, over the state. It outlives its clients below, so that they can say good-bye.
	streams := newLoopbackListener(cfg.NodeName)
	api, err := apiserver.New(ctx, n.apiConfig(store, keys, streams, network))
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
	if err := keys.WriteKubeconfig(n.dir.file("admin.kubeconfig"), n.localURL(), "admin", "system:masters"); err != nil {
		return err
	}
	log.Info("API is ready", "url", n.localURL(), "took", time.Since(start).Round(time.Millisecond), "kubeconfig", n.dir.file("admin.kubeconfig"))

	// Deciders and doers: clients of the API like any other.
	parts, running := errgroup.WithContext(ctx)
	informers := tap.NewSource(api.Informers(), serving.Done())
	parts.Go(func() error {
		return control.Run(running, control.Config{
			REST: api.Loopback(), Informers: informers, CAFile: keys.CAFile(), CAKeyFile: keys.CAKeyFile(),
			SAKeyFile: keys.ServiceAccountKeyFile(), Log: log,
		})
	})
	parts.Go(func() error {
		return schedule.Run(running, schedule.Config{REST: api.Loopback(), Informers: informers, Log: log})
	})
	parts.Go(func() error { return network.run(running) })
	parts.Go(func() error { return runAgent(running, n, agentParts{keys, network, podman, streams, api.Loopback()}) })
	parts.Go(func() error { return servePprof(running, cfg.PprofAddr, log) })
	parts.Go(func() error { giveBack(running, log); return nil })
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
