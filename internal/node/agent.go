package node

import (
	"context"
	"fmt"
	"net"
	"net/netip"

	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"

	"github.com/podman-swarm/podman-swarm/internal/agent"
	"github.com/podman-swarm/podman-swarm/internal/agent/fence"
	"github.com/podman-swarm/podman-swarm/internal/node/predecessor"
	"github.com/podman-swarm/podman-swarm/internal/version"
)

// agentParts are what the agent is given besides the host's facts.
type agentParts struct {
	cluster *cluster
	network network
	machine machine
	streams net.Listener
	fence   *fence.Fence
	lost    predecessor.Agent
	// loopback is the API without the network, for system:masters.
	loopback *rest.Config
}

// client returns a client of the API with the agent's own identity and nothing of system:masters.
func (p agentParts) client() (*kubernetes.Clientset, error) {
	identity := identity{cert: p.cluster.cert.Certificate}
	cfg := rest.AnonymousClientConfig(p.loopback)
	cfg.QPS = -1 // it is paced by its pods; the API server's own fairness guards the rest
	cfg.UserAgent = "podman-swarm-agent/" + version.Swarm()
	cfg.ContentConfig = rest.ContentConfig{ContentType: "application/vnd.kubernetes.protobuf", AcceptContentTypes: "application/vnd.kubernetes.protobuf,application/json"}
	cfg.WrapTransport = p.loopback.WrapTransport
	cfg.Wrap(identity.wrap)
	return kubernetes.NewForConfig(cfg)
}

// runAgent runs this node's pods until ctx ends. The agent is a client like any other: its
// certificate says system:node:NAME, and the Node authorizer limits it to its own pods. Only the
// way is shorter: its requests stay in this process.
func runAgent(ctx context.Context, h *host, p agentParts) error {
	client, err := p.client()
	if err != nil {
		return fmt.Errorf("agent client: %w", err)
	}
	a, err := agent.New(agent.Config{
		NodeName:       h.cfg.NodeName,
		NodeIPs:        []netip.Addr{netip.MustParseAddr(h.cfg.AdvertiseAddr)},
		PodCIDR:        netip.MustParsePrefix(h.cfg.PodCIDR),
		DataDir:        h.cfg.DataDir,
		RunDir:         h.runDir,
		Client:         client,
		Runtime:        p.machine.runtime,
		Network:        p.network,
		Volumes:        p.machine.volumes,
		Exits:          p.machine.exits,
		Labels:         p.machine.labels(),
		Fence:          p.fence,
		Predecessors:   p.lost,
		PodSysctls:     p.network.Sysctls(),
		Socket:         h.cfg.PodmanSocket,
		Listener:       p.streams,
		KubeletVersion: version.Kubernetes + "+swarm",
		Log:            h.log.With("part", "agent"),
	})
	if err != nil {
		return err
	}
	return a.Run(ctx)
}
