//go:build e2e

package volume

import (
	"context"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
)

// podman runs the real one as this user, rootful or rootless.
func podman(t *testing.T, args ...string) (string, error) {
	t.Helper()
	out, err := exec.CommandContext(t.Context(), "podman", args...).CombinedOutput()
	return strings.TrimSpace(string(out)), err
}

// TestRealContainers runs containers on real volumes: uid 1000 with fsGroup 2000 reads a 0440 secret that uid 1001
// without it cannot, two containers share an emptyDir of each medium, updates arrive, and nothing is left.
// SWARM_TEST_IMAGE names a local image with a shell.
func TestRealContainers(t *testing.T) {
	image := os.Getenv("SWARM_TEST_IMAGE")
	if image == "" {
		t.Skip("SWARM_TEST_IMAGE is not set")
	}
	w := &world{
		configMaps: map[string]*corev1.ConfigMap{"cm": {Data: map[string]string{"key": "one"}}},
		secrets:    map[string]*corev1.Secret{"s": {Data: map[string][]byte{"password": []byte("sesame")}}},
	}
	base := t.TempDir()
	v := New(Config{Dir: filepath.Join(base, "pods"), Sources: w, Rootless: os.Geteuid() != 0})
	pod := podWith(tokenVolume(3600),
		vol("s", corev1.VolumeSource{Secret: &corev1.SecretVolumeSource{SecretName: "s", DefaultMode: ptr[int32](0o400)}}),
		vol("cm", corev1.VolumeSource{ConfigMap: &corev1.ConfigMapVolumeSource{LocalObjectReference: corev1.LocalObjectReference{Name: "cm"}}}),
		vol("disk", corev1.VolumeSource{EmptyDir: &corev1.EmptyDirVolumeSource{}}),
		vol("mem", corev1.VolumeSource{EmptyDir: &corev1.EmptyDirVolumeSource{Medium: "Memory"}}))
	pod.Spec.SecurityContext = &corev1.PodSecurityContext{RunAsUser: ptr[int64](1000), FSGroup: ptr[int64](2000)}
	c := &pod.Spec.Containers[0]
	c.VolumeMounts = append(c.VolumeMounts, corev1.VolumeMount{Name: "disk", MountPath: "/sub", SubPath: "a/b"})
	defer func() {
		if err := v.Teardown(context.Background(), pod.UID); err != nil {
			t.Error(err)
		}
		if uids, err := v.List(); err != nil || len(uids) > 0 {
			t.Errorf("left: %v %v", uids, err)
		}
		if m, err := mountsBelow(base); err != nil || len(m) > 0 {
			t.Errorf("mounts left: %v %v", m, err)
		}
	}()
	paths := mustSetup(t, v, pod)
	mounts, err := v.Mounts(t.Context(), MountRequest{Pod: pod, Container: c, Paths: paths})
	if err != nil {
		t.Fatal(err)
	}
	run := func(user, groups, script string) string {
		t.Helper()
		args := []string{"run", "--rm", "--net=none", "--user", user}
		if groups != "" {
			args = append(args, "--group-add", groups)
		}
		for _, m := range mounts {
			spec := "type=bind,source=" + m.HostPath + ",target=" + m.ContainerPath
			if m.ReadOnly {
				spec += ",ro"
			}
			args = append(args, "--mount", spec)
		}
		out, err := podman(t, append(args, image, "sh", "-c", script)...)
		if err != nil {
			out += " (" + err.Error() + ")"
		}
		return out
	}
	want := func(what, got, want string) {
		t.Helper()
		if got != want {
			t.Errorf("%s: got %q, want %q", what, got, want)
		}
	}
	want("secret with fsGroup", run("1000:1000", "2000", "cat /v/s/password; stat -Lc ' %a %u:%g' /v/s/password"), "sesame 440 0:2000")
	if out := run("1001:1001", "", "cat /v/s/password"); !strings.Contains(out, "Permission denied") {
		t.Errorf("uid 1001 without the group reads the secret: %q", out)
	}
	want("token", run("1000:1000", "2000", "cat /v/api/token; stat -Lc ' %a %u:%g' /v/api/token"), "ns/sa/[me]/1 640 1000:2000")
	want("write", run("1000:1000", "2000", "echo x >/v/disk/f && echo y >/v/mem/f && mkdir -m 700 /v/mem/d && stat -c %g /v/disk/f /v/mem/f && echo z >/sub/f"), "2000\n2000")
	want("share", run("1001:1001", "2000", "cat /v/disk/f /v/mem/f /v/disk/a/b/f"), "x\ny\nz")
	want("run a program from memory", run("1000:1000", "2000", "printf '#!/bin/sh\\necho ran\\n' >/v/mem/p && chmod +x /v/mem/p && /v/mem/p"), "ran")
	want("memory is a tmpfs", run("1000:1000", "2000", "stat -fc %T /v/mem /v/s /v/api"), "tmpfs\ntmpfs\ntmpfs")
	want("read only", run("0", "", "touch /v/cm/x 2>/dev/null || echo no"), "no")

	name := "swarm-volume-test"
	args := []string{
		"run", "-d", "--rm", "--name", name, "--net=none", "--mount", "type=bind,source=" + paths["cm"] + ",target=/cm,ro",
		"--mount", "type=bind,source=" + paths["api"] + ",target=/api,ro", image, "sleep", "1000",
	}
	if out, err := podman(t, args...); err != nil {
		t.Fatal(out)
	}
	defer func() { _, _ = podman(t, "rm", "-f", "-t", "0", name) }()
	w.configMaps["cm"] = &corev1.ConfigMap{Data: map[string]string{"key": "two", "new": "n"}}
	v.tokens.forget(pod.UID) // as if it were time
	mustSetup(t, v, pod)
	out, err := podman(t, "exec", name, "sh", "-c", "cat /cm/key /cm/new /api/token")
	if err != nil {
		t.Error(err)
	}
	want("updates in a running container", out, "twonns/sa/[me]/2")
}
