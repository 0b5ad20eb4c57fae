package probe

import (
	"context"
	"log/slog"
	"net"
	"time"

	corev1 "k8s.io/api/core/v1"
)

// Kind is which of a container's probes.
type Kind int

// The kinds of probes.
const (
	Liveness Kind = iota
	Readiness
	Startup
)

// String returns the kind as events name it: "Liveness", "Readiness", "Startup".
func (k Kind) String() string {
	return [...]string{"Liveness", "Readiness", "Startup"}[k]
}

// Result is what one probe found.
type Result string

// Results; upstream's words.
const (
	Success Result = "success"
	Warning Result = "warning" // counts as success, worth an event
	Failure Result = "failure"
	Unknown Result = "unknown" // the probe itself could not be made
)

// Target is a running container. It must not be changed after it was handed over.
type Target struct {
	Pod         *corev1.Pod // spec and metadata; status is not read
	Container   *corev1.Container
	ContainerID string
	PodIP       string
	StartedAt   time.Time // of the container; initialDelaySeconds count from here

	// Started and Ready are what the pod's last published status says of this very container
	// (same ContainerID). They keep a restart of the agent from flapping a healthy pod:
	// a started container is not put through its startup probe again, a ready one stays ready until
	// its probe says otherwise.
	Started, Ready bool
}

// Config is what a Prober needs.
type Config struct {
	// Exec runs a command in a container and returns its exit code and output (stdout and stderr
	// together; more than 10 KB is cut). It must end when ctx does.
	Exec func(ctx context.Context, containerID string, cmd []string) (code int, out []byte, err error)
	// Dial connects from within the pod network.
	Dial func(ctx context.Context, network, addr string) (net.Conn, error)
	Log  *slog.Logger
}

// Transition is a change of what is believed of a container: a result that has reached its threshold
// and differs from the one before.
type Transition struct {
	Target Target
	Kind   Kind
	Result Result // Success or Failure
	// Grace is the probe's own terminationGracePeriodSeconds, nil: the pod's.
	Grace *int64
}

// Event is something a kubelet would record about a container: a Warning with this reason and message.
type Event struct {
	Target  Target
	Reason  string // "Unhealthy" or "ProbeWarning"
	Message string
}

// WorkersConfig is what Workers need. Callbacks come one at a time from one goroutine and must return
// quickly; they may call any method of Workers.
type WorkersConfig struct {
	Prober *Prober
	// OnTransition is called on changes only: readiness gained or lost, startup done or failed,
	// liveness lost. After a failed liveness or startup probe the container must be restarted; it is
	// not probed again until Add brings a new ContainerID.
	OnTransition func(Transition)
	// OnEvent is called for every failed probe, also below the threshold.
	OnEvent func(Event)
	// Parallel bounds the probes under way at once; 0 means 128.
	Parallel int
	Log      *slog.Logger
}
