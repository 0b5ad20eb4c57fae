package podspec_test

import (
	"bytes"
	"encoding/json"
	"flag"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/tools/txtar"
	corev1 "k8s.io/api/core/v1"
	"sigs.k8s.io/yaml"

	"github.com/podman-swarm/podman-swarm/internal/podman"
	"github.com/podman-swarm/podman-swarm/internal/podspec"
)

var update = flag.Bool("update", false, "write what is compiled as what is wanted")

// Each archive holds pod.yaml, optionally image.yaml and host.yaml (podman.Info), and what comes of them.
func TestGolden(t *testing.T) {
	paths, err := filepath.Glob("testdata/*.txtar")
	if err != nil || len(paths) == 0 {
		t.Fatalf("no golden files: %v", err)
	}
	for _, path := range paths {
		t.Run(strings.TrimSuffix(filepath.Base(path), ".txtar"), func(t *testing.T) {
			ar, err := txtar.ParseFile(path)
			if err != nil {
				t.Fatal(err)
			}
			got := compile(t, ar)
			if *update {
				setFile(ar, "want.json", got)
				if err := os.WriteFile(path, txtar.Format(ar), 0o600); err != nil {
					t.Fatal(err)
				}
			}
			if diff := cmp.Diff(string(getFile(ar, "want.json")), string(got)); diff != "" {
				t.Errorf("run with -update to accept (-want +got):\n%s", diff)
			}
		})
	}
}

func getFile(ar *txtar.Archive, name string) []byte {
	for _, f := range ar.Files {
		if f.Name == name {
			return f.Data
		}
	}
	return nil
}

func setFile(ar *txtar.Archive, name string, data []byte) {
	for i := range ar.Files {
		if ar.Files[i].Name == name {
			ar.Files[i].Data = data
			return
		}
	}
	ar.Files = append(ar.Files, txtar.File{Name: name, Data: data})
}

type result struct {
	Pod        podman.PodSpec         `json:"pod"`
	Containers []podman.ContainerSpec `json:"containers"`
	Warnings   []string               `json:"warnings,omitempty"`
	Errors     []string               `json:"errors,omitempty"`
}

func compile(t *testing.T, ar *txtar.Archive) []byte {
	t.Helper()
	var pod corev1.Pod
	img := podman.Image{ID: "imageid", Cmd: []string{"/app"}}
	info := podman.Info{Version: "5.4.2", CgroupVersion: "v2", MemTotal: 8 << 30, MinOOMScoreAdj: -1000, Seccomp: true}
	for name, into := range map[string]any{"pod.yaml": &pod, "image.yaml": &img, "host.yaml": &info} {
		if data := getFile(ar, name); data != nil {
			if err := yaml.UnmarshalStrict(data, into); err != nil {
				t.Fatalf("%s: %v", name, err)
			}
		}
	}
	host := podspec.Facts{
		Podman: info, Node: "n1", DataDir: "/var/lib/swarm", BootID: "boot", SeccompDir: "/var/lib/swarm/seccomp",
		Sysctls: map[string]string{"net.ipv4.ping_group_range": "0 65535", "net.core.somaxconn": "128"},
	}
	res := result{Pod: podspec.Pod(&pod, host)}
	add := func(c *corev1.Container, initial bool) {
		env, err := podspec.Env(&pod, c, podspec.Sources{PodIPs: []string{"10.244.0.7"}, HostIPs: []string{"192.0.2.1"}})
		if err != nil {
			res.Errors = append(res.Errors, err.Error())
			return
		}
		in := podspec.Input{
			Pod: &pod, Container: c, Init: initial, Image: img, Env: env, PodID: "podid", NetNS: "/run/netns/x", Hostname: pod.Name,
			Hosts: "/p/etc-hosts", ResolvConf: "/p/resolv.conf", LogPath: "/p/log", TerminationLog: "/p/term", Host: host,
			Mounts: mountsOf(c),
		}
		if pod.Spec.HostNetwork {
			in.NetNS = ""
		}
		if len(res.Containers) > 0 {
			in.IPC = podspec.IPC{Pid: 4711, ShmDir: "/dev/shm/x"}
		}
		spec, warnings, err := podspec.Container(in)
		res.Warnings = append(res.Warnings, warnings...)
		if err != nil {
			res.Errors = append(res.Errors, err.Error())
			return
		}
		res.Containers = append(res.Containers, spec)
	}
	for i := range pod.Spec.InitContainers {
		add(&pod.Spec.InitContainers[i], true)
	}
	for i := range pod.Spec.Containers {
		add(&pod.Spec.Containers[i], false)
	}
	var b bytes.Buffer
	enc := json.NewEncoder(&b)
	enc.SetEscapeHTML(false)
	enc.SetIndent("", "  ")
	if err := enc.Encode(res); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

func mountsOf(c *corev1.Container) []podspec.Mount {
	var out []podspec.Mount
	for _, m := range c.VolumeMounts {
		pm := podspec.Mount{HostPath: "/v/" + m.Name, ContainerPath: m.MountPath, ReadOnly: m.ReadOnly, Relabel: true}
		if m.MountPropagation != nil {
			pm.Propagation = string(*m.MountPropagation)
		}
		out = append(out, pm)
	}
	return out
}
