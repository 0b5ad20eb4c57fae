package podspec

import (
	"fmt"
	"maps"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"

	"github.com/podman-swarm/podman-swarm/internal/expand"
)

// Sources are where environment variables come from beside the pod itself. ConfigMap and Secret must answer an absent
// object with a Kubernetes NotFound error.
type Sources struct {
	ConfigMap func(namespace, name string) (*corev1.ConfigMap, error)
	Secret    func(namespace, name string) (*corev1.Secret, error)
	// File reads one key of an env file in a volume (fileKeyRef); ok is false when the key is not there.
	File func(volume, path, key string) (value string, ok bool, err error)
	// Services are the service link variables: see ServiceEnv.
	Services        map[string]string
	PodIPs, HostIPs []string            // the first is the primary one
	Allocatable     corev1.ResourceList // the node's: limits that a container leaves open
}

// Env is a container's environment, "NAME=value" sorted by name. Its errors are CreateContainerConfigErrors in the
// kubelet's words.
func Env(pod *corev1.Pod, c *corev1.Container, src Sources) ([]string, error) {
	e := envBuilder{
		pod: pod, container: c, src: src, vars: map[string]string{},
		configMaps: map[string]*corev1.ConfigMap{}, secrets: map[string]*corev1.Secret{},
	}
	for i := range c.EnvFrom {
		if err := e.from(&c.EnvFrom[i]); err != nil {
			return nil, err
		}
	}
	for i := range c.Env {
		if err := e.one(&c.Env[i]); err != nil {
			return nil, err
		}
	}
	for k, v := range src.Services {
		if _, ok := e.vars[k]; !ok {
			e.vars[k] = v
		}
	}
	out := make([]string, 0, len(e.vars))
	for _, k := range slices.Sorted(maps.Keys(e.vars)) {
		if strings.ContainsRune(k, 0) || strings.ContainsRune(e.vars[k], 0) {
			return nil, fmt.Errorf("environment variable %q contains a NUL byte", k)
		}
		out = append(out, k+"="+e.vars[k])
	}
	return out, nil
}

type envBuilder struct {
	pod        *corev1.Pod
	container  *corev1.Container
	src        Sources
	vars       map[string]string
	configMaps map[string]*corev1.ConfigMap
	secrets    map[string]*corev1.Secret
}

func isTrue(b *bool) bool { return b != nil && *b }

// configMap is nil without an error when an optional one is absent.
func (e *envBuilder) configMap(name string, optional bool) (*corev1.ConfigMap, error) {
	if cm, ok := e.configMaps[name]; ok {
		return cm, nil
	}
	cm, err := e.src.ConfigMap(e.pod.Namespace, name)
	if err != nil {
		if optional && apierrors.IsNotFound(err) {
			return nil, nil
		}
		return nil, err
	}
	e.configMaps[name] = cm
	return cm, nil
}

// secret is nil without an error when an optional one is absent.
func (e *envBuilder) secret(name string, optional bool) (*corev1.Secret, error) {
	if s, ok := e.secrets[name]; ok {
		return s, nil
	}
	s, err := e.src.Secret(e.pod.Namespace, name)
	if err != nil {
		if optional && apierrors.IsNotFound(err) {
			return nil, nil
		}
		return nil, err
	}
	e.secrets[name] = s
	return s, nil
}

func (e *envBuilder) from(f *corev1.EnvFromSource) error {
	switch {
	case f.ConfigMapRef != nil:
		cm, err := e.configMap(f.ConfigMapRef.Name, isTrue(f.ConfigMapRef.Optional))
		if err != nil || cm == nil {
			return err
		}
		for k, v := range cm.Data {
			e.vars[f.Prefix+k] = v
		}
	case f.SecretRef != nil:
		s, err := e.secret(f.SecretRef.Name, isTrue(f.SecretRef.Optional))
		if err != nil || s == nil {
			return err
		}
		for k, v := range s.Data {
			e.vars[f.Prefix+k] = string(v)
		}
	}
	return nil
}

func (e *envBuilder) one(v *corev1.EnvVar) error {
	value, set := v.Value, true
	var err error
	switch {
	case v.Value != "":
		value = expand.Vars(v.Value, mapping(e.vars, e.src.Services))
	case v.ValueFrom != nil:
		value, set, err = e.valueFrom(v.ValueFrom)
	}
	if err != nil || !set {
		return err
	}
	e.vars[v.Name] = value
	return nil
}

func (e *envBuilder) valueFrom(f *corev1.EnvVarSource) (value string, set bool, err error) {
	switch {
	case f.FieldRef != nil:
		value, err = e.field(f.FieldRef.FieldPath)
		return value, true, err
	case f.ResourceFieldRef != nil:
		value, err = e.resource(f.ResourceFieldRef)
		return value, true, err
	case f.ConfigMapKeyRef != nil:
		return e.configMapKey(f.ConfigMapKeyRef)
	case f.SecretKeyRef != nil:
		return e.secretKey(f.SecretKeyRef)
	case f.FileKeyRef != nil:
		return e.fileKey(f.FileKeyRef)
	}
	return "", true, nil
}

func (e *envBuilder) configMapKey(ref *corev1.ConfigMapKeySelector) (string, bool, error) {
	optional := isTrue(ref.Optional)
	cm, err := e.configMap(ref.Name, optional)
	if err != nil || cm == nil {
		return "", false, err
	}
	v, ok := cm.Data[ref.Key]
	if !ok && !optional {
		return "", false, fmt.Errorf("couldn't find key %v in ConfigMap %v/%v", ref.Key, e.pod.Namespace, ref.Name)
	}
	return v, ok, nil
}

func (e *envBuilder) secretKey(ref *corev1.SecretKeySelector) (string, bool, error) {
	optional := isTrue(ref.Optional)
	s, err := e.secret(ref.Name, optional)
	if err != nil || s == nil {
		return "", false, err
	}
	v, ok := s.Data[ref.Key]
	if !ok && !optional {
		return "", false, fmt.Errorf("couldn't find key %v in Secret %v/%v", ref.Key, e.pod.Namespace, ref.Name)
	}
	return string(v), ok, nil
}

func (e *envBuilder) fileKey(ref *corev1.FileKeySelector) (string, bool, error) {
	if e.src.File == nil {
		return "", false, fmt.Errorf("cannot find the volume %q referenced by FileKeyRef", ref.VolumeName)
	}
	v, ok, err := e.src.File(ref.VolumeName, ref.Path, ref.Key)
	if err != nil {
		return "", false, fmt.Errorf("couldn't parse env file: %w", err)
	}
	if !ok && !isTrue(ref.Optional) {
		return "", false, fmt.Errorf("environment variable key %q not found in file %q", ref.Key, ref.Path)
	}
	return v, ok, nil
}
