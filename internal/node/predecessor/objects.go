package predecessor

import (
	"context"
	"strings"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/podman-swarm/podman-swarm/internal/node/stored"
	"github.com/podman-swarm/podman-swarm/internal/single"
	"github.com/podman-swarm/podman-swarm/internal/state"
)

// Where the API server keeps pods and claims.
const (
	podsPrefix   = "/pods/"
	claimsPrefix = "/persistentvolumeclaims/"
)

// Read reads a pod as the API server stores it; see Config.
func Read(v state.View, key string, value []byte) (Pod, bool) {
	if !strings.HasPrefix(key, podsPrefix) {
		return Pod{}, false
	}
	p, ok := stored.Object(value).(*corev1.Pod)
	if !ok {
		return Pod{}, false
	}
	return Pod{
		UID: string(p.UID), Node: p.Spec.NodeName, Single: single.Pod(p, claims(v, p.Namespace)),
		Over: p.Status.Phase == corev1.PodSucceeded || p.Status.Phase == corev1.PodFailed,
	}, true
}

// claims finds the claims of a namespace. One that is not there may be yet to come, in the same merge:
// what cannot be found out counts as written by one node.
func claims(v state.View, namespace string) func(name string) *corev1.PersistentVolumeClaim {
	return func(name string) *corev1.PersistentVolumeClaim {
		if e, ok := v.Get(claimsPrefix + namespace + "/" + name); ok {
			if c, ok := stored.Object(e.Value).(*corev1.PersistentVolumeClaim); ok {
				return c
			}
		}
		return &corev1.PersistentVolumeClaim{Spec: corev1.PersistentVolumeClaimSpec{
			AccessModes: []corev1.PersistentVolumeAccessMode{corev1.ReadWriteOnce},
		}}
	}
}

// Agent is an Index as the node's agent asks it.
type Agent struct{ *Index }

// Wait is the Index's.
func (a Agent) Wait(pod *corev1.Pod, runs func(uid types.UID) bool) string {
	return a.Index.Wait(podsPrefix+pod.Namespace+"/"+pod.Name, string(pod.UID), untyped(runs))
}

// Tell is the Index's.
func (a Agent) Tell(ctx context.Context, runs func(uid types.UID) bool) error {
	return a.Index.Tell(ctx, untyped(runs))
}

func untyped(runs func(uid types.UID) bool) func(string) bool {
	return func(uid string) bool { return runs(types.UID(uid)) }
}
