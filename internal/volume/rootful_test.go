package volume

import (
	"errors"
	"os"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
)

// rootful returns Volumes of a rootful node; only root with CAP_SYS_ADMIN can run these tests.
func rootful(t *testing.T) (*Volumes, *world) {
	t.Helper()
	dir := t.TempDir()
	if err := unix.Mount("tmpfs", dir, "tmpfs", 0, ""); err != nil {
		t.Skipf("needs root that may mount: %v", err)
	}
	if err := unix.Unmount(dir, 0); err != nil {
		t.Fatal(err)
	}
	v, w, _ := setup(t)
	cfg := v.cfg
	cfg.Rootless, cfg.Owner = false, nil
	v = New(cfg)
	t.Cleanup(func() { _ = unmountBelow(cfg.Dir) })
	return v, w
}

func TestRootfulMemoryIsATmpfsOfItsSize(t *testing.T) {
	v, _ := rootful(t)
	limit := resource.MustParse("1Mi")
	pod := podWith(vol("m", corev1.VolumeSource{EmptyDir: &corev1.EmptyDirVolumeSource{Medium: "Memory", SizeLimit: &limit}}))
	pod.Spec.SecurityContext = &corev1.PodSecurityContext{FSGroup: ptr[int64](2000)}
	dir := mustSetup(t, v, pod)["m"]
	var st unix.Statfs_t
	if err := unix.Statfs(dir, &st); err != nil || st.Type != unix.TMPFS_MAGIC {
		t.Fatalf("not a tmpfs: %v", err)
	}
	if size := int64(st.Blocks) * st.Bsize; size != limit.Value() {
		t.Errorf("size %d, want %d", size, limit.Value())
	}
	var stat unix.Stat_t
	if err := unix.Stat(dir, &stat); err != nil || stat.Gid != 2000 || stat.Mode&0o7777 != 0o3777 {
		t.Errorf("group %d mode %o", stat.Gid, stat.Mode&0o7777)
	}
	file := filepath.Join(dir, "f")
	if err := os.WriteFile(file, make([]byte, 2<<20), 0o600); !errors.Is(err, unix.ENOSPC) {
		t.Errorf("more than the limit fits: %v", err)
	}
	mustSetup(t, New(v.cfg), pod) // a restarted agent finds it mounted
	if _, err := os.Stat(file); err != nil {
		t.Error("mounted over itself")
	}
	if err := unmountBelow(dir); err != nil { // what a reboot leaves: the directory
		t.Fatal(err)
	}
	mustSetup(t, v, pod)
	if err := unix.Statfs(dir, &st); err != nil || st.Type != unix.TMPFS_MAGIC {
		t.Errorf("not mounted again: %v", err)
	}
	if err := v.Teardown(t.Context(), pod.UID); err != nil {
		t.Fatal(err)
	}
	if m, err := mountsBelow(v.cfg.Dir); err != nil || len(m) > 0 {
		t.Errorf("mounts left: %v %v", m, err)
	}
}

func TestRootfulSubPathIsMountedAndUnmounted(t *testing.T) {
	v, w := rootful(t)
	w.configMaps["cm"] = &corev1.ConfigMap{Data: map[string]string{"key": "1"}}
	pod := podWith(vol("e", corev1.VolumeSource{EmptyDir: &corev1.EmptyDirVolumeSource{}}),
		vol("cm", corev1.VolumeSource{ConfigMap: &corev1.ConfigMapVolumeSource{LocalObjectReference: corev1.LocalObjectReference{Name: "cm"}}}))
	paths := mustSetup(t, v, pod)
	c := &pod.Spec.Containers[0]
	c.VolumeMounts = []corev1.VolumeMount{{Name: "e", SubPath: "a/b", MountPath: "/a"}, {Name: "cm", SubPath: "key", MountPath: "/k"}}
	for _, value := range []string{"1", "1", "2"} {
		w.configMaps["cm"] = &corev1.ConfigMap{Data: map[string]string{"key": value}}
		mustSetup(t, v, pod)
		m, err := v.Mounts(t.Context(), MountRequest{Pod: pod, Container: c, Paths: paths})
		if err != nil {
			t.Fatal(err)
		}
		if b, err := os.ReadFile(m[1].HostPath); err != nil || string(b) != value {
			t.Errorf("the mounted key is %q, want %q: %v", b, value, err)
		}
		// Whoever swaps the directory now comes too late.
		if err := os.Rename(paths["e"]+"/a", paths["e"]+"/moved"); err != nil {
			t.Fatal(err)
		}
		if err := os.Symlink("/etc", paths["e"]+"/a"); err != nil {
			t.Fatal(err)
		}
		if _, err := os.Stat(m[0].HostPath + "/passwd"); !errors.Is(err, os.ErrNotExist) {
			t.Error("the mount follows a link that was put there later")
		}
		if err := os.Remove(paths["e"] + "/a"); err != nil {
			t.Fatal(err)
		}
		if err := os.Rename(paths["e"]+"/moved", paths["e"]+"/a"); err != nil {
			t.Fatal(err)
		}
		if list, _ := mountsBelow(v.podDir(pod.UID)); len(list) != 2 {
			t.Errorf("%d mounts, want 2: %v", len(list), list)
		}
	}
	if err := v.Teardown(t.Context(), pod.UID); err != nil {
		t.Fatal(err)
	}
	if list, _ := mountsBelow(v.cfg.Dir); len(list) > 0 {
		t.Errorf("mounts left: %v", list)
	}
}
