package volume

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
)

// setupEmptyDir makes an empty directory that all containers of the pod share. Once it is there it is never
// touched again: it appears under its name only when owner and mode are right.
//
// With medium Memory a rootful node mounts a tmpfs of the right size; a rootless one cannot mount where
// Podman sees it, and makes a directory on the user's own tmpfs, without a limit of its own.
func (v *Volumes) setupEmptyDir(ctx context.Context, pod *corev1.Pod, vol *corev1.Volume) (string, error) {
	dir := v.diskPath(pod.UID, vol.Name)
	memory := false
	switch vol.EmptyDir.Medium {
	case corev1.StorageMediumDefault:
	case corev1.StorageMediumMemory:
		memory = true
		if v.cfg.Rootless {
			var err error
			if dir, err = v.memoryPath(pod.UID, vol.Name); err != nil {
				return "", err
			}
		}
	default:
		return "", fmt.Errorf("storage medium %q is not supported by Podman Swarm", vol.EmptyDir.Medium)
	}
	mount := memory && !v.cfg.Rootless
	if _, err := os.Lstat(dir); err == nil && (!mount || isMountPoint(dir)) {
		return dir, nil
	} else if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return "", err
	}
	if mount {
		return dir, v.mountEmptyDir(ctx, pod, vol, dir)
	}
	tmp := filepath.Join(filepath.Dir(dir), ".new."+filepath.Base(dir)) // no volume's name begins with a dot
	if err := v.cfg.Owner.RemoveAll(ctx, tmp); err != nil {
		return "", err
	}
	if err := makeDir(tmp, emptyDirMode(vol)); err != nil {
		return "", err
	}
	if err := v.own(ctx, pod, vol, tmp); err != nil {
		return "", err
	}
	return dir, os.Rename(tmp, dir)
}

func (v *Volumes) mountEmptyDir(ctx context.Context, pod *corev1.Pod, vol *corev1.Volume, dir string) error {
	if err := makeDir(dir, emptyDirMode(vol)); err != nil {
		return err
	}
	if err := mountTmpfs(dir, v.memorySize(pod, vol)); err != nil {
		return err
	}
	if vol.EmptyDir.Mode != nil {
		if err := os.Chmod(dir, emptyDirMode(vol)); err != nil {
			return errors.Join(err, unmountBelow(dir))
		}
	}
	if err := v.own(ctx, pod, vol, dir); err != nil {
		return errors.Join(err, unmountBelow(dir))
	}
	return nil
}

// own gives a new emptyDir to the pod's fsGroup.
func (v *Volumes) own(ctx context.Context, pod *corev1.Pod, vol *corev1.Volume, dir string) error {
	group := fsGroup(pod)
	if group == nil {
		return nil
	}
	info, err := os.Lstat(dir)
	if err != nil {
		return err
	}
	mode := info.Mode()&(os.ModePerm|os.ModeSticky) | groupWrite | groupDir
	if err := v.cfg.Owner.Apply(ctx, []Change{{Path: dir, UID: -1, GID: int(*group), Mode: &mode}}); err != nil {
		return fmt.Errorf("give volume %q to group %d: %w", vol.Name, *group, err)
	}
	return nil
}

func emptyDirMode(vol *corev1.Volume) os.FileMode {
	m := vol.EmptyDir.Mode
	if m == nil {
		return volumeMode
	}
	mode := os.FileMode(*m) & os.ModePerm
	if *m&0o1000 != 0 {
		mode |= os.ModeSticky
	}
	if *m&0o2000 != 0 {
		mode |= os.ModeSetgid
	}
	return mode
}

// memorySize is the smallest of what the volume, the pod's containers together and the node allow.
func (v *Volumes) memorySize(pod *corev1.Pod, vol *corev1.Volume) int64 {
	node := v.cfg.Sources.NodeAllocatable()
	size := node.Memory().Value()
	lower := func(q *resource.Quantity) {
		if n := q.Value(); n > 0 && (size <= 0 || n < size) {
			size = n
		}
	}
	total, limited := resource.Quantity{}, true
	for i := range pod.Spec.Containers {
		limit := pod.Spec.Containers[i].Resources.Limits.Memory()
		limited = limited && !limit.IsZero()
		total.Add(*limit)
	}
	if limited {
		lower(&total)
	}
	if s := vol.EmptyDir.SizeLimit; s != nil {
		lower(s)
	}
	return size
}
