package volume

import (
	"context"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
)

func TestMounts(t *testing.T) {
	v, w, _ := setup(t)
	w.configMaps["cm"] = &corev1.ConfigMap{Data: map[string]string{"key": "1"}}
	host := t.TempDir()
	pod := podWith(vol("e", corev1.VolumeSource{EmptyDir: &corev1.EmptyDirVolumeSource{}}),
		vol("cm", corev1.VolumeSource{ConfigMap: &corev1.ConfigMapVolumeSource{LocalObjectReference: corev1.LocalObjectReference{Name: "cm"}}}),
		vol("h", corev1.VolumeSource{HostPath: &corev1.HostPathVolumeSource{Path: host}}))
	paths := mustSetup(t, v, pod)
	c := &pod.Spec.Containers[0]
	c.VolumeMounts = []corev1.VolumeMount{
		{Name: "e", MountPath: "/e"},
		{Name: "e", MountPath: "relative", ReadOnly: true, SubPath: "a/b"},
		{Name: "e", MountPath: "/x", SubPathExpr: "$(POD)/$$(POD)"},
		{Name: "cm", MountPath: "/etc/file", SubPath: "key"},
		{Name: "h", MountPath: "/h", MountPropagation: ptr(corev1.MountPropagationBidirectional)},
		{Name: "h", MountPath: "/i", MountPropagation: ptr(corev1.MountPropagationHostToContainer), ReadOnly: true},
		{Name: "h", MountPath: "/j", ReadOnly: true, RecursiveReadOnly: ptr(corev1.RecursiveReadOnlyIfPossible)},
	}
	got, err := v.Mounts(t.Context(), MountRequest{Pod: pod, Container: c, Paths: paths, Env: []string{"POD=p-0", "X=a=b"}})
	if err != nil {
		t.Fatal(err)
	}
	data, _ := os.Readlink(filepath.Join(paths["cm"], dataName))
	want := []Mount{
		{"e", paths["e"], "/e", false, "private", true},
		{"e", paths["e"] + "/a/b", "/relative", true, "private", true},
		{"e", paths["e"] + "/p-0/$(POD)", "/x", false, "private", true},
		{"cm", filepath.Join(paths["cm"], data, "key"), "/etc/file", true, "private", true},
		{"h", host, "/h", false, "rshared", false},
		{"h", host, "/i", true, "rslave", false},
		{"h", host, "/j", true, "private", false},
	}
	if d := cmp.Diff(want, got); d != "" {
		t.Error(d)
	}
	if info, err := os.Stat(paths["e"] + "/a/b"); err != nil || info.Mode().Perm() != 0o777 {
		t.Errorf("a subPath directory has the volume's mode: %v %v", info, err)
	}
}

func TestMountErrors(t *testing.T) {
	v, _, _ := setup(t)
	pod := podWith(vol("e", corev1.VolumeSource{EmptyDir: &corev1.EmptyDirVolumeSource{}}))
	paths := mustSetup(t, v, pod)
	for want, m := range map[string]corev1.VolumeMount{
		`cannot find volume "none" to mount into container "c"`:        {Name: "none"},
		"error SubPath `/abs` must not be an absolute path":            {Name: "e", SubPath: "/abs"},
		"unable to provision SubPath `a/../..`: must not contain '..'": {Name: "e", SubPath: "a/../.."},
		"missing value for A, B":                                       {Name: "e", SubPathExpr: "$(B)-$(A)-$(B)"},
		`invalid MountPropagation mode: "Odd"`:                         {Name: "e", MountPropagation: ptr(corev1.MountPropagationMode("Odd"))},
		`failed to resolve recursive read-only mode: volume "e" requested recursive read-only mode, but it is not read-only`:                {Name: "e", RecursiveReadOnly: ptr(corev1.RecursiveReadOnlyEnabled)},
		`failed to resolve recursive read-only mode: volume "e" requested recursive read-only mode, but it is not supported by the runtime`: {Name: "e", ReadOnly: true, RecursiveReadOnly: ptr(corev1.RecursiveReadOnlyEnabled)},
	} {
		pod.Spec.Containers[0].VolumeMounts = []corev1.VolumeMount{m}
		_, err := v.Mounts(t.Context(), MountRequest{Pod: pod, Container: &pod.Spec.Containers[0], Paths: paths})
		if err == nil || err.Error() != want {
			t.Errorf("got  %v\nwant %s", err, want)
		}
	}
}

func TestSubPathStaysInside(t *testing.T) {
	v, _, _ := setup(t)
	pod := podWith(vol("e", corev1.VolumeSource{EmptyDir: &corev1.EmptyDirVolumeSource{}}))
	paths := mustSetup(t, v, pod)
	dir := paths["e"]
	outside := t.TempDir()
	for name, target := range map[string]string{
		"abs": outside, "up": "../../../..", "proc": "/proc/self/root", "inside": "real", "dangling": "nowhere",
	} {
		if err := os.Symlink(target, filepath.Join(dir, name)); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.MkdirAll(filepath.Join(dir, "real/sub"), 0o755); err != nil {
		t.Fatal(err)
	}
	for sub, ok := range map[string]bool{
		"abs": false, "abs/new": false, "up": false, "up/etc": false, "proc/etc": false, "dangling/x": false,
		"inside": true, "inside/sub": true, "inside/new/er": true,
	} {
		pod.Spec.Containers[0].VolumeMounts = []corev1.VolumeMount{{Name: "e", MountPath: "/m", SubPath: sub}}
		got, err := v.Mounts(t.Context(), MountRequest{Pod: pod, Container: &pod.Spec.Containers[0], Paths: paths})
		if (err == nil) != ok {
			t.Errorf("%s: %v %v", sub, got, err)
		}
		if ok && got[0].HostPath != filepath.Join(dir, strings.Replace(sub, "inside", "real", 1)) {
			t.Errorf("%s: %s", sub, got[0].HostPath)
		}
		if !ok && err != nil && strings.Contains(err.Error(), outside) {
			t.Errorf("the error tells of the host: %v", err)
		}
	}
	if left, _ := os.ReadDir(outside); len(left) > 0 {
		t.Errorf("something was made outside the volume: %v", left)
	}
}

func TestNestedMountPoints(t *testing.T) {
	v, w, _ := setup(t)
	w.configMaps["cm"] = &corev1.ConfigMap{Data: map[string]string{"key": "1"}}
	pod := podWith(vol("cm", corev1.VolumeSource{ConfigMap: &corev1.ConfigMapVolumeSource{LocalObjectReference: corev1.LocalObjectReference{Name: "cm"}}}),
		vol("e", corev1.VolumeSource{EmptyDir: &corev1.EmptyDirVolumeSource{}}))
	pod.Spec.Containers[0].VolumeMounts = []corev1.VolumeMount{
		{Name: "cm", MountPath: "/etc/c"}, {Name: "e", MountPath: "/etc/c/in/ner"}, {Name: "e", MountPath: "/etc/c/in/ner/most"}, {Name: "e", MountPath: "/etc/cc"},
	}
	dir := mustSetup(t, v, pod)["cm"]
	w.configMaps["cm"] = &corev1.ConfigMap{Data: map[string]string{"key": "2"}}
	mustSetup(t, v, pod)
	if _, err := os.Stat(filepath.Join(dir, "in/ner")); err != nil {
		t.Error(err)
	}
	if _, err := os.Stat(filepath.Join(dir, "in/ner/most")); !errors.Is(err, fs.ErrNotExist) {
		t.Error("the doubly nested mount point is the inner volume's")
	}
}

func TestMountPointEscapes(t *testing.T) {
	line := `36 35 98:0 /mnt1 /a\040b\134c/d rw,noatime master:1 - ext3 /dev/root rw`
	if got := mountPoint(line); got != `/a b\c/d` {
		t.Errorf("%q", got)
	}
}

func TestUnshareScript(t *testing.T) {
	dir := t.TempDir()
	file := filepath.Join(dir, "it's a file")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	// Without a user namespace there is only our own id to give files to; the shell is the real one.
	u := Unshare{Command: []string{"env", "ID=1"}}
	mode := os.FileMode(0o640)
	err := u.Apply(t.Context(), []Change{{Path: file, UID: -1, GID: os.Getegid(), Mode: &mode}})
	if info, statErr := os.Stat(file); err != nil || statErr != nil || info.Mode() != mode {
		t.Errorf("%v %v %v", err, statErr, info.Mode())
	}
	if err := (Unshare{Command: []string{"false"}}).Apply(context.Background(), []Change{{Path: file, UID: 5, GID: -1}}); err == nil {
		t.Error("a failing command is an error")
	}
	if err := u.RemoveAll(t.Context(), dir); err != nil {
		t.Error(err)
	}
	if _, err := os.Stat(dir); !errors.Is(err, fs.ErrNotExist) {
		t.Error("still there")
	}
}
