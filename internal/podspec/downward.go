package podspec

import (
	"fmt"
	"maps"
	"math"
	"slices"
	"strconv"
	"strings"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	"k8s.io/apimachinery/pkg/util/validation"
)

// field is a fieldRef's value.
func (e *envBuilder) field(path string) (string, error) {
	if name, key, ok := subscript(path); ok {
		return e.subscripted(path, name, key)
	}
	p := e.pod
	first := func(list []string) string {
		if len(list) == 0 {
			return ""
		}
		return list[0]
	}
	switch path {
	case "metadata.name":
		return p.Name, nil
	case "metadata.namespace":
		return p.Namespace, nil
	case "metadata.uid":
		return string(p.UID), nil
	case "metadata.labels":
		return formatMap(p.Labels), nil
	case "metadata.annotations":
		return formatMap(p.Annotations), nil
	case "spec.nodeName":
		return p.Spec.NodeName, nil
	case "spec.serviceAccountName":
		return p.Spec.ServiceAccountName, nil
	case "status.hostIP":
		return first(e.src.HostIPs), nil
	case "status.hostIPs":
		return strings.Join(e.src.HostIPs, ","), nil
	case "status.podIP":
		return first(e.src.PodIPs), nil
	case "status.podIPs":
		return strings.Join(e.src.PodIPs, ","), nil
	}
	return "", fmt.Errorf("unsupported fieldPath: %v", path)
}

func (e *envBuilder) subscripted(path, name, key string) (string, error) {
	var m map[string]string
	check := key
	switch name {
	case "metadata.labels":
		m = e.pod.Labels
	case "metadata.annotations":
		m, check = e.pod.Annotations, strings.ToLower(key)
	default:
		return "", fmt.Errorf("fieldPath %q does not support subscript", path)
	}
	if errs := validation.IsQualifiedName(check); len(errs) > 0 {
		return "", fmt.Errorf("invalid key subscript in %s: %s", path, strings.Join(errs, ";"))
	}
	return m[key], nil
}

// subscript takes "metadata.labels['a']" apart.
func subscript(path string) (name, key string, ok bool) {
	s, closed := strings.CutSuffix(path, "']")
	name, key, open := strings.Cut(s, "['")
	return name, key, closed && open && name != ""
}

func formatMap(m map[string]string) string {
	lines := make([]string, 0, len(m))
	for _, k := range slices.Sorted(maps.Keys(m)) {
		lines = append(lines, k+"="+strconv.Quote(m[k]))
	}
	return strings.Join(lines, "\n")
}

// resource is a resourceFieldRef's value; a limit that is not set is the node's allocatable amount.
func (e *envBuilder) resource(ref *corev1.ResourceFieldSelector) (string, error) {
	c := e.container
	if ref.ContainerName != "" && ref.ContainerName != c.Name {
		c = nil
		for _, list := range [][]corev1.Container{e.pod.Spec.Containers, e.pod.Spec.InitContainers} {
			for i := range list {
				if list[i].Name == ref.ContainerName {
					c = &list[i]
				}
			}
		}
		if c == nil {
			return "", fmt.Errorf("container %s not found", ref.ContainerName)
		}
	}
	kind, name, _ := strings.Cut(ref.Resource, ".")
	var q resource.Quantity
	switch kind {
	case "limits":
		v, ok := c.Resources.Limits[corev1.ResourceName(name)]
		if !ok || v.IsZero() {
			v = e.src.Allocatable[corev1.ResourceName(name)]
		}
		q = v
	case "requests":
		q = c.Resources.Requests[corev1.ResourceName(name)]
	default:
		return "", fmt.Errorf("unsupported container resource : %v", ref.Resource)
	}
	return divide(name, ref.Resource, q, ref.Divisor)
}

func divide(name, path string, q, divisor resource.Quantity) (string, error) {
	if divisor.IsZero() {
		divisor = resource.MustParse("1")
	}
	var n float64
	switch {
	case name == string(corev1.ResourceCPU):
		n = float64(q.MilliValue()) / float64(divisor.MilliValue())
	case name == string(corev1.ResourceMemory), name == string(corev1.ResourceEphemeralStorage),
		strings.HasPrefix(name, corev1.ResourceHugePagesPrefix):
		n = float64(q.Value()) / float64(divisor.Value())
	default:
		return "", fmt.Errorf("unsupported container resource : %v", path)
	}
	return strconv.FormatInt(int64(math.Ceil(n)), 10), nil
}
