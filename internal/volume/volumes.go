package volume

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"
)

// Volumes makes and removes the volumes of this node's pods. Safe for concurrent use; calls for one
// pod wait for each other.
type Volumes struct {
	cfg    Config
	tokens *tokens

	mu      sync.Mutex
	locks   map[types.UID]*podLock
	written map[string]digest // what the atomic volumes hold, by directory
	memory  string            // what MemoryRoot found
}

type podLock struct {
	sync.Mutex
	users int
}

// New returns Volumes. It does no I/O.
func New(cfg Config) *Volumes {
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.DiscardHandler)
	}
	if cfg.Owner == nil {
		if cfg.Rootless {
			cfg.Owner = Unshare{}
		} else {
			cfg.Owner = Direct{}
		}
	}
	return &Volumes{
		cfg:     cfg,
		tokens:  newTokens(cfg),
		locks:   map[types.UID]*podLock{},
		written: map[string]digest{},
	}
}

// lock keeps calls for one pod apart; call what it returns to let the next one in.
func (v *Volumes) lock(uid types.UID) func() {
	v.mu.Lock()
	l := v.locks[uid]
	if l == nil {
		l = &podLock{}
		v.locks[uid] = l
	}
	l.users++
	v.mu.Unlock()
	l.Lock()
	return func() {
		l.Unlock()
		v.mu.Lock()
		defer v.mu.Unlock()
		if l.users--; l.users == 0 {
			delete(v.locks, uid)
		}
	}
}

// Setup makes all volumes of a pod and returns their host paths by volume name. It is idempotent and is
// also the refresh: called again it brings ConfigMaps, Secrets, tokens and downward API files up to date,
// atomically, without touching containers. Volumes that no container mounts are not made, as with a kubelet.
// Every volume is tried; the error joins one *Error per volume that failed (see Errors), and the paths of
// the others are returned with it. A refresh that fails leaves the old files.
func (v *Volumes) Setup(ctx context.Context, pod *corev1.Pod) (map[string]string, error) {
	defer v.lock(pod.UID)()
	used := usedVolumes(pod)
	paths := map[string]string{}
	var errs []error
	for i := range pod.Spec.Volumes {
		vol := &pod.Spec.Volumes[i]
		if !used[vol.Name] {
			continue
		}
		path, err := v.setup(ctx, pod, vol)
		if err != nil {
			errs = append(errs, &Error{Volume: vol.Name, Err: err})
			continue
		}
		paths[vol.Name] = path
	}
	return paths, errors.Join(errs...)
}

func (v *Volumes) setup(ctx context.Context, pod *corev1.Pod, vol *corev1.Volume) (string, error) {
	switch {
	case vol.HostPath != nil:
		return vol.HostPath.Path, setupHostPath(vol.HostPath)
	case vol.EmptyDir != nil:
		return v.setupEmptyDir(ctx, pod, vol)
	case vol.ConfigMap != nil:
		return v.setupFiles(ctx, pod, vol, v.diskPath(pod.UID, vol.Name))
	case vol.Secret != nil, vol.Projected != nil, vol.DownwardAPI != nil:
		dir, err := v.memoryPath(pod.UID, vol.Name)
		if err != nil {
			return "", err
		}
		return v.setupFiles(ctx, pod, vol, dir)
	default:
		return "", fmt.Errorf("volume type %q is not supported by Podman Swarm", typeName(vol))
	}
}

// setupFiles makes or refreshes a volume whose files come from the API.
func (v *Volumes) setupFiles(ctx context.Context, pod *corev1.Pod, vol *corev1.Volume, dir string) (string, error) {
	files, err := v.payload(ctx, pod, vol)
	if err != nil {
		return "", err
	}
	if err := validate(files); err != nil {
		return "", err
	}
	sum := sumOf(files, fsGroup(pod))
	v.mu.Lock()
	same := v.written[dir] == sum
	v.mu.Unlock()
	if same {
		if _, err := os.Lstat(filepath.Join(dir, dataName)); err == nil {
			return dir, nil
		}
	}
	if err := makeDir(dir, volumeMode); err != nil {
		return "", err
	}
	for _, nested := range nestedMountPoints(pod, vol.Name) {
		if err := os.MkdirAll(filepath.Join(dir, nested), 0o755); err != nil {
			return "", fmt.Errorf("unable to create nested volume mountpoints: %w", err)
		}
	}
	w := writer{dir: dir, owner: v.cfg.Owner, fsGroup: fsGroup(pod)}
	if err := w.write(ctx, files); err != nil {
		return "", err
	}
	v.mu.Lock()
	v.written[dir] = sum
	v.mu.Unlock()
	return dir, nil
}

func (v *Volumes) podDir(uid types.UID) string { return filepath.Join(v.cfg.Dir, string(uid)) }

func (v *Volumes) diskPath(uid types.UID, name string) string {
	return filepath.Join(v.podDir(uid), "volumes", name)
}

// Teardown removes everything of a pod: mounts, memory-backed volumes and DIR/pods/<uid> with all that the
// agent keeps there, whoever owns the files. Containers must be gone. Idempotent.
func (v *Volumes) Teardown(ctx context.Context, uid types.UID) error {
	if uid == "" || filepath.Base(string(uid)) != string(uid) || uid == "." || uid == ".." {
		return fmt.Errorf("tear down volumes: invalid pod UID %q", uid)
	}
	defer v.lock(uid)()
	dirs := []string{v.podDir(uid)}
	if mem, err := v.memoryRoot(); err == nil {
		dirs = append(dirs, filepath.Join(mem, string(uid)))
	}
	for _, dir := range dirs {
		if err := unmountBelow(dir); err != nil {
			return fmt.Errorf("tear down volumes of pod %s: %w", uid, err)
		}
		if err := v.cfg.Owner.RemoveAll(ctx, dir); err != nil {
			return fmt.Errorf("tear down volumes of pod %s: %w", uid, err)
		}
	}
	v.tokens.forget(uid)
	v.mu.Lock()
	defer v.mu.Unlock()
	if v.memory != "" { // the last one leaves nothing in memory
		_ = os.Remove(v.memory)
		_ = os.Remove(filepath.Dir(v.memory))
	}
	for dir := range v.written {
		if slices.ContainsFunc(dirs, func(d string) bool { return within(dir, d) }) {
			delete(v.written, dir)
		}
	}
	return nil
}

// List returns the UIDs of pods that have anything on this host, sorted.
func (v *Volumes) List() ([]types.UID, error) {
	dirs := []string{v.cfg.Dir}
	if mem, err := v.memoryRoot(); err == nil {
		dirs = append(dirs, mem)
	}
	var uids []types.UID
	for _, dir := range dirs {
		entries, err := os.ReadDir(dir)
		if err != nil && !errors.Is(err, os.ErrNotExist) {
			return nil, fmt.Errorf("list volumes: %w", err)
		}
		for _, e := range entries {
			if e.IsDir() {
				uids = append(uids, types.UID(e.Name()))
			}
		}
	}
	slices.SortFunc(uids, cmp.Compare[types.UID])
	return slices.Compact(uids), nil
}

// NextRefresh says when Setup must be called again to renew a token of this pod; zero: never.
// Changes of ConfigMaps, Secrets and of the pod itself are the caller's to watch (see Uses).
func (v *Volumes) NextRefresh(pod *corev1.Pod) time.Time { return v.tokens.next(pod.UID) }

// Notes are one-line remarks on what this host does differently from what the pod's volumes ask
// (for example: a sizeLimit that is not enforced), for a Warning event.
func (v *Volumes) Notes(pod *corev1.Pod) []string {
	var notes []string
	used := usedVolumes(pod)
	for i := range pod.Spec.Volumes {
		vol := &pod.Spec.Volumes[i]
		if vol.EmptyDir == nil || !used[vol.Name] {
			continue
		}
		memory := vol.EmptyDir.Medium == corev1.StorageMediumMemory
		if s := vol.EmptyDir.SizeLimit; s != nil && !s.IsZero() && (!memory || v.cfg.Rootless) {
			notes = append(notes, fmt.Sprintf("volume %q: sizeLimit %s is not enforced on this node", vol.Name, s))
		}
	}
	return notes
}
