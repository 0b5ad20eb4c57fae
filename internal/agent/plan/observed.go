package plan

import (
	"time"

	corev1 "k8s.io/api/core/v1"
)

// State is the life of one container as the plan needs to know it.
type State string

// States of a container.
const (
	Created State = "created" // never started
	Running State = "running"
	Exited  State = "exited"
	Unknown State = "unknown" // may or may not run
)

// Reasons of an ended container, as users of kubectl know them.
const (
	ReasonCompleted = "Completed"
	ReasonError     = "Error"
	ReasonOOMKilled = "OOMKilled"
	ReasonCannotRun = "ContainerCannotRun"
	// ReasonNodeReboot marks a container that the machine's end cut off; its true exit code is unknown.
	ReasonNodeReboot    = "NodeReboot"
	ReasonStatusUnknown = "ContainerStatusUnknown"
)

// ExitCodeCutOff stands for the unknown exit code of a container that a reboot cut off.
const ExitCodeCutOff = 255

// Container is one attempt at running one container of the pod.
type Container struct {
	ID      string
	Name    string // the container's name in the pod
	Init    bool
	Attempt int    // 0 for the first
	Hash    string // of the definition it was made from
	Boot    string // the boot of the machine it was made in

	State    State
	ExitCode int32
	Reason   string // set when Exited
	Message  string // the termination message
	Created  time.Time
	Started  time.Time
	Finished time.Time
	// Restart: it was killed in order to be started again, whatever its exit code.
	Restart bool

	Image   string
	ImageID string
}

// Health is what the probes know of a running container.
type Health struct {
	Started bool // the startup probe, if any, has succeeded
	Ready   bool // the readiness probe, if any, succeeds
	Failed  FailedProbe
}

// FailedProbe names the probe on whose account a container has to go.
type FailedProbe string

// Probes that end a container.
const (
	NoneFailed     FailedProbe = ""
	LivenessFailed FailedProbe = "liveness"
	StartupFailed  FailedProbe = "startup"
)

// Waiting says why a container that should run does not.
type Waiting struct{ Reason, Message string }

// Latest returns the newest attempt at the container called name, nil when there is none.
func Latest(all []Container, name string) *Container {
	return latest(all, name, func(*Container) bool { return true })
}

func latest(all []Container, name string, ok func(*Container) bool) *Container {
	var best *Container
	for i := range all {
		c := &all[i]
		if c.Name != name || !ok(c) {
			continue
		}
		if best == nil || c.Attempt > best.Attempt ||
			c.Attempt == best.Attempt && c.Created.After(best.Created) {
			best = c
		}
	}
	return best
}

// Sidecar tells whether an init container is a native sidecar.
func Sidecar(c *corev1.Container) bool {
	return c.RestartPolicy != nil && *c.RestartPolicy == corev1.ContainerRestartPolicyAlways
}

// Unsupported returns a sentence naming what the agent cannot do yet for this pod, "" when it can
// do all of it. Such a pod is not started: half of it running would be silently wrong.
func Unsupported(pod *corev1.Pod) string {
	for i := range pod.Spec.InitContainers {
		c := &pod.Spec.InitContainers[i]
		if c.RestartPolicy != nil || len(c.RestartPolicyRules) > 0 {
			return "init container " + c.Name + ": restartPolicy of a container (sidecars) is not supported yet"
		}
	}
	for i := range pod.Spec.Containers {
		c := &pod.Spec.Containers[i]
		if c.RestartPolicy != nil || len(c.RestartPolicyRules) > 0 {
			return "container " + c.Name + ": restartPolicy of a container is not supported yet"
		}
	}
	for i := range pod.Spec.Volumes {
		if pod.Spec.Volumes[i].Image != nil {
			return "volume " + pod.Spec.Volumes[i].Name + ": image volumes are not supported yet"
		}
	}
	if pod.Spec.RuntimeClassName != nil {
		return "runtimeClassName is not supported: this node has one runtime, Podman's"
	}
	if pod.Spec.OS != nil && pod.Spec.OS.Name != corev1.Linux {
		return "os " + string(pod.Spec.OS.Name) + " is not supported: this node runs Linux"
	}
	if len(pod.Spec.ResourceClaims) > 0 {
		return "resourceClaims are not supported yet"
	}
	return ""
}
