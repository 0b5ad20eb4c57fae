package operate

import (
	"reflect"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"

	"github.com/podman-swarm/podman-swarm/internal/node/operate/bare"
	"github.com/podman-swarm/podman-swarm/internal/node/operate/overwrite"
	"github.com/podman-swarm/podman-swarm/internal/node/stored"
	"github.com/podman-swarm/podman-swarm/internal/state"
)

// changes are what makes the present what a backup holds.
type changes struct {
	// removals come before writes. Objects that were made anew since are in both: a watcher must see the
	// one go before the other comes, or what belongs to the one is never collected.
	removals, writes []state.Write
	namespaces       []string // made since
	pods             []bare.Change
}

func (c changes) count() int {
	return len(c.removals) + len(c.writes) + len(c.namespaces) + len(c.pods)
}

// difference tells what makes now what want is, as far as that is for a restore to do.
func difference(now, want state.View) changes {
	var c changes
	want.Ascend("", "", func(then *state.Entry) bool {
		if !restorable(then) {
			return true
		}
		if cur, ok := now.Get(then.Key); !ok {
			c.add(then.Key, nil, then)
		} else if !slices.Equal(cur.Value, then.Value) {
			c.add(then.Key, cur, then)
		}
		return true
	})
	now.Ascend("", "", func(cur *state.Entry) bool {
		if _, ok := want.Get(cur.Key); !ok && restorable(cur) {
			c.add(cur.Key, cur, nil)
		}
		return true
	})
	return c
}

// ownKeys is where everything is that is not Kubernetes'.
const ownKeys = "/swarm/"

// restorable tells whether a key is for a restore to change. What belongs to the swarm itself (members,
// tokens, keys, the journal) stays, and so does what tells which machines there are and who does
// something at the moment: nodes may have come and gone since. Events tell of the past.
func restorable(e *state.Entry) bool {
	present := []string{ownKeys, "/minions/", "/csinodes/", "/volumeattachments/", "/leases/", "/events/"}
	return e.Expires == 0 && !slices.ContainsFunc(present, func(prefix string) bool { return strings.HasPrefix(e.Key, prefix) })
}

// add takes note of a key whose values differ; nil is one that does not exist.
func (c *changes) add(key string, now, then *state.Entry) {
	is, was := object(now), object(then)
	if controlled(is) || controlled(was) || sameWork(is, was) {
		return
	}
	put, remove := state.Write{Key: key, Expect: state.Any}, state.Write{Key: key, Delete: true, Expect: state.Any}
	resource, _, name := overwrite.FromKey(key)
	switch {
	case resource == "pods":
		c.addPod(is, was)
	case then == nil && resource == "namespaces":
		c.namespaces = append(c.namespaces, name)
	case then == nil:
		c.removals = append(c.removals, remove)
	default:
		// A namespace that goes takes along what is in it.
		if is != nil && was != nil && is.GetUID() != was.GetUID() && resource != "namespaces" {
			c.removals = append(c.removals, remove)
		}
		put.Value = then.Value
		c.writes = append(c.writes, put)
	}
}

// sameWork tells that an object differs in nothing that people write. Its status is of the present: with
// that of then a Job that has completed since would run once more.
func sameWork(is, was metav1.Object) bool {
	now, ok := is.(runtime.Object)
	then, ok2 := was.(runtime.Object)
	return ok && ok2 && is.GetUID() == was.GetUID() && reflect.DeepEqual(overwrite.Work(now), overwrite.Work(then))
}

func (c *changes) addPod(is, was metav1.Object) {
	now, _ := is.(*corev1.Pod)
	then, _ := was.(*corev1.Pod)
	if p := (bare.Change{Now: now, Then: then}); p.Needed() {
		c.pods = append(c.pods, p)
	}
}

// object reads what a key holds; nil: nothing that can be read.
func object(e *state.Entry) metav1.Object {
	if e == nil {
		return nil
	}
	m, err := meta.Accessor(stored.Object(e.Value))
	if err != nil {
		return nil
	}
	return m
}

// managedBy is the label of Endpoints that upstream's controller makes, and the controller's name: they
// have no owner.
const managedBy, endpointController = "endpoints.kubernetes.io/managed-by", "endpoint-controller"

// controlled tells that an object's controller makes it, changes it and has it removed: it does so by
// what was restored of the object that it belongs to. Its former version would tell of pods, or count
// replicas, that are no more.
func controlled(m metav1.Object) bool {
	if m == nil {
		return false
	}
	if metav1.GetControllerOf(m) != nil || m.GetLabels()[managedBy] == endpointController {
		return true
	}
	// The API's own Service and its endpoints: every node keeps itself in them.
	return m.GetNamespace() == metav1.NamespaceDefault && m.GetName() == "kubernetes" && isService(m)
}

func isService(m metav1.Object) bool {
	switch m.(type) {
	case *corev1.Service, *corev1.Endpoints, *discoveryv1.EndpointSlice: //nolint:staticcheck // clients may still read Endpoints
		return true
	}
	return false
}
