package agent

import (
	"context"
	"errors"
	"sync/atomic"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/kubernetes/fake"
	corev1client "k8s.io/client-go/kubernetes/typed/core/v1"

	"github.com/podman-swarm/podman-swarm/internal/podman"
	"github.com/podman-swarm/podman-swarm/internal/podman/podmantest"
)

// leaderless is how long an API server waits for a leader.
const leaderless = 10 * time.Second

// stuck says which calls hang, most until their caller gives up, as those of a node without a network or a leader.
type stuck struct{ pulls, statuses, volumes atomic.Bool }

type stuckPodman struct {
	*podmantest.Fake
	stuck *stuck
}

func (p stuckPodman) Pull(ctx context.Context, ref string, auth *podman.Auth) (string, error) {
	if p.stuck.pulls.Load() {
		<-ctx.Done()
		return "", ctx.Err()
	}
	return p.Fake.Pull(ctx, ref, auth)
}

type stuckVolumes struct {
	*shelves
	stuck *stuck
}

func (v stuckVolumes) Setup(ctx context.Context, pod *corev1.Pod) (map[string]string, error) {
	if v.stuck.volumes.Load() {
		select {
		case <-ctx.Done():
			return nil, ctx.Err()
		case <-time.After(leaderless):
			return nil, errors.New("no leader")
		}
	}
	return v.shelves.Setup(ctx, pod)
}

type stuckAPI struct {
	*fake.Clientset
	stuck *stuck
}

func (a stuckAPI) CoreV1() corev1client.CoreV1Interface {
	return stuckCore{a.Clientset.CoreV1(), a.stuck}
}

type stuckCore struct {
	corev1client.CoreV1Interface
	stuck *stuck
}

func (c stuckCore) Pods(namespace string) corev1client.PodInterface {
	return stuckPods{c.CoreV1Interface.Pods(namespace), c.stuck}
}

type stuckPods struct {
	corev1client.PodInterface
	stuck *stuck
}

func (p stuckPods) Patch(ctx context.Context, name string, kind types.PatchType, data []byte, o metav1.PatchOptions,
	sub ...string,
) (*corev1.Pod, error) {
	if p.stuck.statuses.Load() {
		<-ctx.Done()
		return nil, ctx.Err()
	}
	return p.PodInterface.Patch(ctx, name, kind, data, o, sub...)
}
