package probe

import (
	"context"
	"errors"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"
)

var errSoon = errors.New("probe: not written yet")

// Prober makes single probes and runs lifecycle hooks. Safe for concurrent use.
type Prober struct{ cfg Config }

// New returns a Prober.
func New(cfg Config) *Prober { return &Prober{cfg: cfg} }

// Probe asks once, within the probe's timeout. The string is the output for events. An error means that
// no probe could be made (unknown port name, container gone); it says nothing of the container.
func (p *Prober) Probe(ctx context.Context, t Target, spec *corev1.Probe) (Result, string, error) {
	return Unknown, "", errSoon
}

// Hook runs a postStart or preStop handler until it ends or ctx does. With an error comes the message
// for the log; events say only "PostStartHook failed" / "PreStopHook failed", as upstream, so that
// nothing secret leaks.
func (p *Prober) Hook(ctx context.Context, t Target, h *corev1.LifecycleHandler) (msg string, err error) {
	return "", errSoon
}

// Workers run the probes of all containers of a node by their timing fields.
type Workers struct{ cfg WorkersConfig }

// NewWorkers returns Workers; nothing is probed until Run.
func NewWorkers(cfg WorkersConfig) *Workers { return &Workers{cfg: cfg} }

// Run probes until ctx ends and waits for probes under way.
func (w *Workers) Run(ctx context.Context) error { return errSoon }

// Add starts probing a container that runs. The same ContainerID again only updates the target; a new one
// replaces the container's older attempt. Containers without probes need not be added, but may be.
func (w *Workers) Add(t Target) {}

// Remove stops probing a container and forgets its results.
func (w *Workers) Remove(uid types.UID, container string) {}

// RemovePod stops probing all containers of a pod.
func (w *Workers) RemovePod(uid types.UID) {}

// Terminating stops liveness and startup probes of a pod that is being deleted; readiness goes on, so that
// a pod that drains is seen as not ready.
func (w *Workers) Terminating(uid types.UID) {}

// Started says whether a container has passed its startup probe (or has none).
func (w *Workers) Started(c *corev1.Container, containerID string) bool { return false }

// Ready says whether a running container is ready: started, and its readiness probe, if any, last succeeded.
func (w *Workers) Ready(c *corev1.Container, containerID string) bool { return false }

// KillMessage is upstream's Killing event for a container that failed its liveness or startup probe.
func KillMessage(container string, k Kind) string { return "" }
