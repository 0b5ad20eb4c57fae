package worker

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"net"
	"net/netip"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/tools/record"

	"github.com/podman-swarm/podman-swarm/internal/agent/image"
	"github.com/podman-swarm/podman-swarm/internal/agent/ledger"
	"github.com/podman-swarm/podman-swarm/internal/agent/objects"
	"github.com/podman-swarm/podman-swarm/internal/netd"
	"github.com/podman-swarm/podman-swarm/internal/podman"
	"github.com/podman-swarm/podman-swarm/internal/podspec"
	"github.com/podman-swarm/podman-swarm/internal/probe"
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

// Host is what all workers of a node share.
type Host struct {
	DataDir       string
	NodeIPs       []netip.Addr
	ClusterDomain string
	ClusterDNS    []netip.Addr
	Boot          string // the machine's present boot

	Client  kubernetes.Interface
	Runtime Runtime
	Network Network
	Volumes Volumes
	Ledger  *ledger.Ledger
	Groups  *ledger.Groups
	Images  *image.Images
	Objects *objects.Objects
	Prober  *probe.Prober
	Probes  *probe.Workers
	Events  record.EventRecorder
	// Slots bounds by its capacity how many pods are being started at one time.
	Slots chan struct{}

	// Fence says whether pods that must not run twice may run here; nil: they may.
	Fence Fence
	// Namesake tells why a pod must not be started yet, for a user: one that had its name before has not ended
	// here. Empty: it may be.
	Namesake func(pod *corev1.Pod) string
	// Wait tells why a pod that must not run twice must not be started yet, for a user: what it replaced in
	// a merge may run still. Empty: it may be; nil: all may.
	Wait func(pod *corev1.Pod) string

	Facts       func() podspec.Facts
	Allocatable func() corev1.ResourceList
	// Trouble is told of errors that are not a pod's own.
	Trouble func(error)
	// Launched is told of every container that was started.
	Launched func(id string)
	Now      func() time.Time
	Log      *slog.Logger
}

// Look asks Podman for the truth of a container whose end may not have been heard of. It returns the
// pod for which the answer is news, "" when it is none.
func (h *Host) Look(ctx context.Context, id string) (types.UID, error) {
	x, err := h.Runtime.Inspect(ctx, id)
	if errors.Is(err, podman.ErrNotFound) {
		e, _ := h.Ledger.Get(id)
		h.Ledger.Remove(id)
		return e.UID, nil
	}
	if err != nil || x.State != podman.Exited {
		return "", err
	}
	at := x.Finished
	if at.IsZero() {
		at = h.Now()
	}
	return h.Ledger.Exited(podman.Exit{ID: id, Code: x.ExitCode, At: at}), nil
}
