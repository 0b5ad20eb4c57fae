package volume

import (
	"fmt"
	"math"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	utilerrors "k8s.io/apimachinery/pkg/util/errors"
	"k8s.io/apimachinery/pkg/util/validation"
)

// downwardFiles makes the files that tell a pod about itself.
func (v *Volumes) downwardFiles(pod *corev1.Pod, items []corev1.DownwardAPIVolumeFile, mode *int32,
) (map[string]file, error) {
	files := make(map[string]file, len(items))
	var errs []error
	for _, item := range items {
		var (
			value string
			err   error
		)
		switch {
		case item.FieldRef != nil:
			value, err = podField(pod, item.FieldRef.FieldPath)
		case item.ResourceFieldRef != nil:
			value, err = v.resourceField(pod, item.ResourceFieldRef)
		}
		if err != nil {
			errs = append(errs, err)
			continue
		}
		files[filepath.Clean(item.Path)] = file{
			data: []byte(value), mode: modeOr(item.Mode, modeOr(mode, defaultMode)),
		}
	}
	return files, utilerrors.NewAggregate(errs)
}

// podField is upstream's ExtractFieldPathAsString.
func podField(pod *corev1.Pod, path string) (string, error) {
	if s, ok := strings.CutSuffix(path, "']"); ok {
		if of, key, ok := strings.Cut(s, "['"); ok && of != "" {
			return podMapField(pod, path, of, key)
		}
	}
	switch path {
	case "metadata.annotations":
		return formatMap(pod.Annotations), nil
	case "metadata.labels":
		return formatMap(pod.Labels), nil
	case "metadata.name":
		return pod.Name, nil
	case "metadata.namespace":
		return pod.Namespace, nil
	case "metadata.uid":
		return string(pod.UID), nil
	}
	return "", fmt.Errorf("unsupported fieldPath: %v", path)
}

func podMapField(pod *corev1.Pod, path, of, key string) (string, error) {
	values, name := pod.Labels, key
	switch of {
	case "metadata.labels":
	case "metadata.annotations":
		values, name = pod.Annotations, strings.ToLower(key)
	default:
		return "", fmt.Errorf("fieldPath %q does not support subscript", path)
	}
	if errs := validation.IsQualifiedName(name); len(errs) > 0 {
		return "", fmt.Errorf("invalid key subscript in %s: %s", path, strings.Join(errs, ";"))
	}
	return values[key], nil
}

// formatMap writes one key="value" per line, sorted.
func formatMap(m map[string]string) string {
	lines := make([]string, 0, len(m))
	for k, v := range m {
		lines = append(lines, k+"="+strconv.Quote(v))
	}
	slices.Sort(lines)
	return strings.Join(lines, "\n")
}

// resourceField is upstream's ExtractResourceValueByContainerNameAndNodeAllocatable.
func (v *Volumes) resourceField(pod *corev1.Pod, ref *corev1.ResourceFieldSelector) (string, error) {
	var of *corev1.Container
	containers(pod, func(c *corev1.Container) {
		if c.Name == ref.ContainerName {
			of = c
		}
	})
	if of == nil {
		return "", fmt.Errorf("container %s not found", ref.ContainerName)
	}
	kind, name, _ := strings.Cut(ref.Resource, ".")
	resourceName := corev1.ResourceName(name)
	var values corev1.ResourceList
	switch kind {
	case "limits":
		values = of.Resources.Limits
	case "requests":
		values = of.Resources.Requests
	}
	huge := strings.HasPrefix(name, corev1.ResourceHugePagesPrefix)
	plain := slices.Contains([]corev1.ResourceName{
		corev1.ResourceCPU, corev1.ResourceMemory, corev1.ResourceEphemeralStorage,
	}, resourceName)
	if (kind != "limits" && kind != "requests") || (!huge && !plain) {
		return "", fmt.Errorf("unsupported container resource : %v", ref.Resource)
	}
	value := values[resourceName]
	if kind == "limits" && plain && value.IsZero() { // no limit: all that the node has
		value = v.cfg.Sources.NodeAllocatable()[resourceName]
	}
	divisor := ref.Divisor
	if divisor.IsZero() {
		divisor = resource.MustParse("1")
	}
	if resourceName == corev1.ResourceCPU {
		return quotient(value.MilliValue(), divisor.MilliValue()), nil
	}
	return quotient(value.Value(), divisor.Value()), nil
}

func quotient(value, divisor int64) string {
	return strconv.FormatInt(int64(math.Ceil(float64(value)/float64(divisor))), 10)
}
