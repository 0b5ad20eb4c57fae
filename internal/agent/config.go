package agent

import (
	"context"
	"log/slog"
	"net"
	"net/netip"
	"time"

	"k8s.io/client-go/kubernetes"

	"github.com/podman-swarm/podman-swarm/internal/agent/worker"
	"github.com/podman-swarm/podman-swarm/internal/podman"
)

// Runtime is Podman; *podman.Client is one.
type Runtime = worker.Runtime

// Network gives pods their place in the pod network; *netd.Net is one.
type Network = worker.Network

// Volumes makes the pods' volumes; *volume.Volumes is one.
type Volumes = worker.Volumes

// Config of an Agent.
type Config struct {
	NodeName string
	// NodeIPs are the node's addresses, the first is its InternalIP and every pod's hostIP.
	NodeIPs []netip.Addr
	// PodCIDR is this node's range of pod addresses, told in its Node object.
	PodCIDR netip.Prefix
	// DataDir is the node's data directory: pods/ and logs/ below it are the agent's.
	DataDir string
	// RunDir must not survive a boot of the machine: it tells one boot from another.
	RunDir string
	// Client has the credential of system:node:NodeName.
	Client  kubernetes.Interface
	Runtime Runtime
	Network Network
	// PodSysctls are what Network sets its namespaces to; Podman must not set them otherwise.
	PodSysctls map[string]string
	// Volumes is made by New when nil.
	Volumes Volumes
	// Fence says whether this node is cut off; nil: it never is.
	Fence Fence
	// Predecessors may keep a pod that must not run twice from being started; nil: there are none.
	Predecessors Predecessors
	// Socket is the libpod socket of a service that is always there: its absence makes the node
	// NotReady at once. Empty for a service that comes and goes.
	Socket string
	// Exits tells of containers that ended until ctx does; nil: conmon's exit files are watched.
	Exits func(ctx context.Context, fn func(podman.Exit)) error
	// Listener receives the API server's requests for logs, exec and the like; nil: none are served.
	Listener net.Listener
	// StreamPort is told as the node's kubelet port; 0: none.
	StreamPort int32
	// Labels are on the Node object beside those every node has.
	Labels map[string]string
	// KubeletVersion is told as such in the Node object.
	KubeletVersion string
	// ClusterDomain is the suffix of Service names; "" means cluster.local.
	ClusterDomain string
	// ClusterDNS answers names of the cluster; empty: pods ask the node's servers.
	ClusterDNS []netip.Addr
	// MaxPods bounds the pods of this node; 0 means 110.
	MaxPods int
	// Parallel bounds the pods being started at one time; 0 means 6.
	Parallel int
	// Now is the clock; nil means time.Now.
	Now func() time.Time
	Log *slog.Logger
}

func (c Config) withDefaults() Config {
	if c.ClusterDomain == "" {
		c.ClusterDomain = "cluster.local"
	}
	if c.MaxPods == 0 {
		c.MaxPods = 110
	}
	if c.Parallel == 0 {
		c.Parallel = 6
	}
	if c.Now == nil {
		c.Now = time.Now
	}
	return c
}
