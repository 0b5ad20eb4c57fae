package overwrite

import (
	"reflect"
	"strings"
	"sync"

	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"

	"github.com/podman-swarm/podman-swarm/internal/node/stored"
	"github.com/podman-swarm/podman-swarm/internal/state/journal"
)

// Derived remembers which overwrites are derived: a record never changes, and telling costs two decoded
// objects.
type Derived struct {
	mu   sync.Mutex
	know map[string]bool // by ID
}

// maxKnown bounds what is remembered; the journal of one merge is far smaller.
const maxKnown = 10_000

// Is tells whether an overwrite is derived: it lost nobody's work.
func (d *Derived) Is(c *journal.Conflict) bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	is, known := d.know[c.ID]
	if !known {
		if is = derived(c); d.know == nil || len(d.know) >= maxKnown {
			d.know = map[string]bool{}
		}
		d.know[c.ID] = is
	}
	return is
}

// derived tells that an overwrite lost nobody's work: the versions differ in what controllers and agents
// write by themselves, and have written again since. What cannot be read, as a Secret, is not derived.
func derived(c *journal.Conflict) bool {
	kept, lost := stored.Object(c.Kept.Value), stored.Object(c.Lost.Value)
	if kept == nil && !c.Kept.Deleted || lost == nil && !c.Lost.Deleted {
		return false
	}
	if made(c.Key, kept) && made(c.Key, lost) {
		return true
	}
	return kept != nil && lost != nil && reflect.DeepEqual(Work(kept), Work(lost))
}

// made tells whether a controller makes and mends this object. nil is one that it deleted.
func made(key string, obj runtime.Object) bool {
	resource, namespace, name := FromKey(key)
	switch {
	case resource == "events", resource == "endpoints", resource == "endpointslices",
		resource == "services" && namespace == metav1.NamespaceDefault && name == "kubernetes", obj == nil:
		return true
	}
	m, err := meta.Accessor(obj)
	return err == nil && metav1.GetControllerOf(m) != nil
}

// Work is what people and their tools write of an object.
func Work(obj runtime.Object) map[string]any {
	text, err := runtime.DefaultUnstructuredConverter.ToUnstructured(obj)
	if err != nil {
		return nil
	}
	delete(text, "status")
	for _, field := range []string{"managedFields", "resourceVersion", "generation"} {
		unstructured.RemoveNestedField(text, "metadata", field)
	}
	unstructured.RemoveNestedField(text, "metadata", "annotations", "deployment.kubernetes.io/revision")
	if taints, found, err := unstructured.NestedSlice(text, "spec", "taints"); found && err == nil {
		var set []any
		for _, taint := range taints {
			if key, _, _ := unstructured.NestedString(asMap(taint), "key"); !strings.HasPrefix(key, "node.kubernetes.io/") {
				set = append(set, taint)
			}
		}
		unstructured.RemoveNestedField(text, "spec", "taints")
		if len(set) > 0 {
			_ = unstructured.SetNestedSlice(text, set, "spec", "taints") // spec is a map: taints were in it
		}
	}
	return text
}

func asMap(x any) map[string]any {
	m, _ := x.(map[string]any)
	return m
}
