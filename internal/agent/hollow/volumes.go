package hollow

import (
	"context"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/podman-swarm/podman-swarm/internal/volume"
)

// Volumes makes none: nobody would read them.
type Volumes struct{}

// Setup implements worker.Volumes.
func (Volumes) Setup(context.Context, *corev1.Pod) (map[string]string, error) {
	return map[string]string{}, nil
}

// Mounts implements worker.Volumes.
func (Volumes) Mounts(context.Context, volume.MountRequest) ([]volume.Mount, error) { return nil, nil }

// NextRefresh implements worker.Volumes: never.
func (Volumes) NextRefresh(*corev1.Pod) time.Time { return time.Time{} }

// Notes implements worker.Volumes.
func (Volumes) Notes(*corev1.Pod) []string { return nil }

// Teardown implements worker.Volumes.
func (Volumes) Teardown(context.Context, types.UID) error { return nil }

// List implements worker.Volumes.
func (Volumes) List() ([]types.UID, error) { return nil, nil }
