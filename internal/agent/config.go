package agent

import (
	"context"
	"io"
	"log/slog"
	"net"
	"net/netip"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/kubernetes"

	"github.com/podman-swarm/podman-swarm/internal/agent/image"
	"github.com/podman-swarm/podman-swarm/internal/netd"
	"github.com/podman-swarm/podman-swarm/internal/podman"
	"github.com/podman-swarm/podman-swarm/internal/volume"
)

// Observer reads what Podman has.
type Observer interface {
	Ping(ctx context.Context) error
	Info(ctx context.Context) (podman.Info, error)
	Containers(ctx context.Context, labels map[string]string) ([]podman.Container, error)
	Pods(ctx context.Context, labels map[string]string) ([]podman.Pod, error)
	Inspect(ctx context.Context, id string) (podman.Container, error)
}

// Maker changes what Podman has.
type Maker interface {
	CreatePod(ctx context.Context, spec podman.PodSpec) (string, error)
	RemovePod(ctx context.Context, name string) error
	Create(ctx context.Context, spec podman.ContainerSpec) (string, error)
	Start(ctx context.Context, id string) error
	Kill(ctx context.Context, id, signal string) error
	Remove(ctx context.Context, id string, force bool) error
}

// Streamer connects to containers.
type Streamer interface {
	Exec(ctx context.Context, id string, cfg podman.ExecConfig) (int, error)
	Attach(ctx context.Context, id string, cfg podman.AttachConfig) error
}

// Runtime is Podman; *podman.Client is one.
type Runtime interface {
	Observer
	Maker
	Streamer
	image.Runtime
}

// Network gives pods their place in the pod network; *netd.Net is one.
type Network interface {
	Add(ctx context.Context, id string) (netd.Attachment, error)
	Remove(ctx context.Context, id string) error
	List(ctx context.Context) ([]netd.Attachment, error)
	DialContext(ctx context.Context, network, addr string) (net.Conn, error)
	DialPod(ctx context.Context, id, network string, port uint16) (net.Conn, error)
	Publish(ctx context.Context, p netd.HostPort) (io.Closer, error)
}

// Volumes makes the pods' volumes; *volume.Volumes is one.
type Volumes interface {
	Setup(ctx context.Context, pod *corev1.Pod) (map[string]string, error)
	Mounts(ctx context.Context, r volume.MountRequest) ([]volume.Mount, error)
	NextRefresh(pod *corev1.Pod) time.Time
	Notes(pod *corev1.Pod) []string
	Teardown(ctx context.Context, uid types.UID) error
	List() ([]types.UID, error)
}

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
	// Volumes is made by New when nil.
	Volumes Volumes
	// Socket is the libpod socket of a service that is always there: its absence makes the node
	// NotReady at once. Empty for a service that comes and goes.
	Socket string
	// Exits tells of containers that ended until ctx does; nil: conmon's exit files are watched.
	Exits func(ctx context.Context, fn func(podman.Exit)) error
	// Listener receives the API server's requests for logs, exec and the like; nil: none are served.
	Listener net.Listener
	// StreamPort is told as the node's kubelet port; 0: none.
	StreamPort int32
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
