package node

import (
	"context"
	"log/slog"

	"golang.org/x/sync/errgroup"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"

	"github.com/podman-swarm/podman-swarm/internal/apiserver"
	"github.com/podman-swarm/podman-swarm/internal/control"
	"github.com/podman-swarm/podman-swarm/internal/node/lead"
	"github.com/podman-swarm/podman-swarm/internal/node/operate/overwrite"
	"github.com/podman-swarm/podman-swarm/internal/node/peers"
	"github.com/podman-swarm/podman-swarm/internal/node/predecessor"
	"github.com/podman-swarm/podman-swarm/internal/node/sight"
	"github.com/podman-swarm/podman-swarm/internal/schedule"
	"github.com/podman-swarm/podman-swarm/internal/tap"
)

// deciders are what runs on the leader only.
type deciders struct {
	c         *cluster
	api       *apiserver.Server
	informers *tap.Source
	lost      *predecessor.Index
	log       *slog.Logger
}

func (d deciders) run(ctx context.Context) error {
	d.log.Info("this node leads: its controllers and scheduler begin")
	defer d.log.Info("controllers and scheduler of this node have ended")
	parts, ctx := errgroup.WithContext(ctx)
	config, log := lead.Bound(ctx, d.api.Loopback()), lead.Quiet(ctx, d.log)
	client, err := kubernetes.NewForConfig(config)
	if err != nil {
		return err
	}
	for part, run := range map[string]func(context.Context) error{
		"controllers": func(ctx context.Context) error { return d.control(ctx, config, log) },
		"scheduler": func(ctx context.Context) error {
			return schedule.Run(ctx, schedule.Config{REST: config, Informers: d.informers, Log: log})
		},
	} {
		parts.Go(func() error { return lead.Again(ctx, log, part, control.ErrStillRunning, run) })
	}
	parts.Go(func() error { // begins anew by itself
		return overwrite.Announce(ctx, overwrite.Config{Node: d.c.host.cfg.NodeName, Store: d.c.store, Client: client, Log: log})
	})
	return parts.Wait()
}

// control runs the controllers until ctx ends, anew whenever the swarm's keys change: upstream
// reads the authorities only at the start.
func (d deciders) control(ctx context.Context, config *rest.Config, log *slog.Logger) error {
	for ctx.Err() == nil {
		changed := d.c.keys.Changed()
		running, end := context.WithCancel(ctx)
		stop := make(chan struct{})
		go func() {
			defer close(stop)
			select {
			case <-changed:
				end()
			case <-running.Done():
			}
		}()
		err := control.Run(running, control.Config{
			REST: config, Informers: d.informers, CAFile: d.c.keys.CAFile(), IssuerFile: d.c.keys.IssuerFile(),
			CAKeyFile: d.c.keys.CAKeyFile(), SAKeyFile: d.c.keys.ServiceAccountKeyFile(), Log: log, Liveness: peers.Liveness{Peers: d.c.peers},
			Lost: d.lost,
		})
		end()
		<-stop
		if err != nil { // perhaps an old certificate was read beside a new key
			return err
		}
	}
	return nil
}

// lost indexes the pods that merges took from the API while they may still run.
func (c *cluster) lost() *predecessor.Index {
	return predecessor.New(predecessor.Config{Node: c.host.cfg.NodeName, Store: c.store, Pod: predecessor.Read, Log: c.log})
}

// sight counts the nodes that this one sees.
func (c *cluster) sight(api *apiserver.Server) *sight.Counter {
	return sight.New(sight.Config{
		Nodes: api.Informers().Core().V1().Nodes().Informer(), Members: c.peers.Members, Changed: c.peers.Changed, Status: c.store.Status,
	})
}
