package node

import (
	"context"
	"net/http"
	"os"
	"sync/atomic"
	"time"

	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"

	"github.com/podman-swarm/podman-swarm/internal/node/operate"
	"github.com/podman-swarm/podman-swarm/internal/node/playdead"
	"github.com/podman-swarm/podman-swarm/internal/swarm"
	"github.com/podman-swarm/podman-swarm/internal/version"
)

// operations is the handler of /swarm/v1. The API server is made with it before there is a client
// for its backend.
type operations struct{ handler atomic.Pointer[http.Handler] }

// ServeHTTP implements http.Handler.
func (o *operations) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if h := o.handler.Load(); h != nil {
		(*h).ServeHTTP(w, r)
		return
	}
	http.Error(w, `{"error":"this node is still starting: try again in a moment"}`, http.StatusServiceUnavailable)
}

// caGrace is longer than a mounted ConfigMap takes to follow: pods read the authorities there.
const caGrace = 90 * time.Second

// farewellTime lets the answer to a leave get through before the agent ends.
const farewellTime = 300 * time.Millisecond

// playDead has this process become another one after delay, and a new agent after pause.
func (h *host) playDead(delay, pause time.Duration, failed func(error)) error {
	program, err := os.Executable()
	if err == nil {
		err = playdead.Prepare()
	}
	if err != nil {
		return err
	}
	death := playdead.Death{
		Pause: pause, DataDir: h.cfg.DataDir, RunDir: h.runDir, Socket: h.cfg.PodmanSocket, Hollow: h.cfg.hollow(),
		Program: program, Args: os.Args,
	}
	time.AfterFunc(delay, func() { failed(death.Begin()) })
	return nil
}

// operate fills the handler in and runs what belongs to it until ctx ends. stop ends the agent.
func (c *cluster) operate(ctx context.Context, loopback *rest.Config, stop context.CancelFunc) error {
	client, err := kubernetes.NewForConfig(loopback)
	if err != nil {
		return err
	}
	backend, run := operate.New(operate.Config{
		Node: c.host.cfg.NodeName, Addr: c.host.cfg.wireAddr(), Freeze: c.host.cfg.OnQuorumLoss == freeze,
		Store: c.store, Peers: c.peers, Keys: c.keys, Cert: c.cert, Tokens: c.admitter.Tokens(),
		REST: loopback, Client: client, Backups: c.host.dir.File("backups"), Release: version.Swarm(), Log: c.host.log.With("part", "swarm"),
		CAGrace: caGrace,
		Left: func() error {
			err := c.host.me.leave()
			time.AfterFunc(farewellTime, stop)
			return err
		},
		PlayDead: c.host.playDead,
	})
	handler := swarm.Handler(backend)
	c.ops.handler.Store(&handler)
	return run(ctx)
}
