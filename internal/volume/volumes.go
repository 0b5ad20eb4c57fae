package volume

import (
	"context"
	"errors"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"
)

var errSoon = errors.New("volume: not written yet")

// Volumes makes and removes the volumes of this node's pods. Safe for concurrent use; calls for one
// pod wait for each other.
type Volumes struct{ cfg Config }

// New returns Volumes. It does no I/O.
func New(cfg Config) *Volumes { return &Volumes{cfg: cfg} }

// Setup makes all volumes of a pod and returns their host paths by volume name. It is idempotent and is
// also the refresh: called again it brings ConfigMaps, Secrets, tokens and downward API files up to date,
// atomically, without touching containers. Every volume is tried; the error joins one *Error per volume
// that failed (see Errors), and the paths of the others are returned with it.
func (v *Volumes) Setup(ctx context.Context, pod *corev1.Pod) (map[string]string, error) {
	return nil, errSoon
}

// Mounts returns the mounts of a container, making subPath directories where missing.
// Call it for each attempt anew.
func (v *Volumes) Mounts(ctx context.Context, r MountRequest) ([]Mount, error) { return nil, errSoon }

// Teardown removes everything of a pod: mounts, memory-backed volumes and DIR/pods/<uid> with all that the
// agent keeps there, whoever owns the files. Containers must be gone. Idempotent.
func (v *Volumes) Teardown(ctx context.Context, uid types.UID) error { return errSoon }

// List returns the UIDs of pods that have anything on this host.
func (v *Volumes) List() ([]types.UID, error) { return nil, errSoon }

// NextRefresh says when Setup must be called again to renew a token of this pod; zero: never.
// Changes of ConfigMaps, Secrets and of the pod itself are the caller's to watch.
func (v *Volumes) NextRefresh(pod *corev1.Pod) time.Time { return time.Time{} }

// Uses says whether a pod's volumes read this object (kind "ConfigMap" or "Secret").
func Uses(pod *corev1.Pod, kind, name string) bool { return false }

// Notes are one-line remarks on what this host does differently from what the pod's volumes ask
// (for example: a sizeLimit that is not enforced), for a Warning event.
func (v *Volumes) Notes(pod *corev1.Pod) []string { return nil }
