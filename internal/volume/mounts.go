package volume

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"

	"github.com/podman-swarm/podman-swarm/internal/expand"
)

// Mounts returns the mounts of a container, making subPath directories where missing.
// Call it for each attempt anew: subPaths are looked up again. Errors are the text of a
// CreateContainerConfigError.
func (v *Volumes) Mounts(ctx context.Context, r MountRequest) ([]Mount, error) {
	defer v.lock(r.Pod.UID)()
	mounts := make([]Mount, 0, len(r.Container.VolumeMounts))
	for i := range r.Container.VolumeMounts {
		m, err := v.mount(ctx, r, i)
		if err != nil {
			return nil, err
		}
		mounts = append(mounts, m)
	}
	return mounts, nil
}

func (v *Volumes) mount(ctx context.Context, r MountRequest, index int) (Mount, error) {
	vm := &r.Container.VolumeMounts[index]
	at := slices.IndexFunc(r.Pod.Spec.Volumes, func(vol corev1.Volume) bool { return vol.Name == vm.Name })
	path, ok := r.Paths[vm.Name]
	if !ok || at < 0 {
		return Mount{}, fmt.Errorf("cannot find volume %q to mount into container %q", vm.Name, r.Container.Name)
	}
	vol := &r.Pod.Spec.Volumes[at]
	sub, err := subPath(vm, r.Env)
	if err != nil {
		return Mount{}, err
	}
	if sub != "" {
		s := subPathMount{volume: path, sub: sub, pod: v.podDir(r.Pod.UID), at: filepath.Join(
			"volume-subpaths", vm.Name, r.Container.Name, fmt.Sprint(index)), group: -1}
		if g := fsGroup(r.Pod); g != nil {
			s.group = int(*g)
		}
		if path, err = v.prepareSubPath(ctx, s); err != nil {
			// The cause stays in the log: it could tell of the host's files.
			v.cfg.Log.Warn("subPath", "pod", r.Pod.Namespace+"/"+r.Pod.Name, "container", r.Container.Name,
				"volume", vm.Name, "err", err)
			verb := "prepare subPath"
			if errors.Is(err, errMakeSubPath) {
				verb = "create subPath directory"
			}
			return Mount{}, fmt.Errorf("failed to %s for volumeMount %q of container %q", verb, vm.Name, r.Container.Name)
		}
	}
	if err := checkRecursiveReadOnly(vm); err != nil {
		return Mount{}, fmt.Errorf("failed to resolve recursive read-only mode: %w", err)
	}
	propagation, err := propagation(vm.MountPropagation)
	if err != nil {
		return Mount{}, err
	}
	target := vm.MountPath
	if !filepath.IsAbs(target) {
		target = "/" + target
	}
	fromAPI := vol.ConfigMap != nil || vol.Secret != nil || vol.Projected != nil || vol.DownwardAPI != nil
	return Mount{
		Name: vm.Name, HostPath: path, ContainerPath: target, ReadOnly: vm.ReadOnly || fromAPI,
		Propagation: propagation, Relabel: vol.HostPath == nil,
	}, nil
}

// subPath is the part of the volume that a mount wants; "" for all of it.
func subPath(vm *corev1.VolumeMount, env []string) (string, error) {
	sub := vm.SubPath
	if vm.SubPathExpr != "" {
		values := make(map[string]string, len(env))
		for _, e := range env {
			name, value, _ := strings.Cut(e, "=")
			values[name] = value
		}
		var missing []string
		sub = expand.Vars(vm.SubPathExpr, func(name string) (string, bool) {
			if values[name] == "" {
				missing = append(missing, name)
			}
			return values[name], true
		})
		if len(missing) > 0 {
			slices.Sort(missing)
			return "", fmt.Errorf("missing value for %s", strings.Join(slices.Compact(missing), ", "))
		}
	}
	switch {
	case filepath.IsAbs(sub):
		return "", fmt.Errorf("error SubPath `%s` must not be an absolute path", sub)
	case slices.Contains(strings.Split(sub, "/"), ".."):
		return "", fmt.Errorf("unable to provision SubPath `%s`: must not contain '..'", sub)
	}
	return sub, nil
}

// checkRecursiveReadOnly: no Podman we support can do it, so IfPossible is not and Enabled is an error.
func checkRecursiveReadOnly(vm *corev1.VolumeMount) error {
	if vm.RecursiveReadOnly == nil || *vm.RecursiveReadOnly == corev1.RecursiveReadOnlyDisabled {
		return nil
	}
	why := ""
	switch p, mode := vm.MountPropagation, *vm.RecursiveReadOnly; {
	case !vm.ReadOnly:
		why = "it is not read-only"
	case p != nil && *p != corev1.MountPropagationNone:
		why = fmt.Sprintf("it is not compatible with propagation %q", *p)
	case mode == corev1.RecursiveReadOnlyIfPossible:
		return nil
	case mode == corev1.RecursiveReadOnlyEnabled:
		why = "it is not supported by the runtime"
	default:
		return fmt.Errorf("unknown recursive read-only mode %q", mode)
	}
	return fmt.Errorf("volume %q requested recursive read-only mode, but %s", vm.Name, why)
}

func propagation(mode *corev1.MountPropagationMode) (string, error) {
	switch {
	case mode == nil, *mode == corev1.MountPropagationNone:
		return "private", nil
	case *mode == corev1.MountPropagationHostToContainer:
		return "rslave", nil
	case *mode == corev1.MountPropagationBidirectional:
		return "rshared", nil
	default:
		return "", fmt.Errorf("invalid MountPropagation mode: %q", *mode)
	}
}
