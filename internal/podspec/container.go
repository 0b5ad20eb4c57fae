package podspec

import (
	"fmt"
	"strconv"
	"strings"

	corev1 "k8s.io/api/core/v1"

	"github.com/podman-swarm/podman-swarm/internal/podman"
)

// Container compiles one attempt of a container. The warnings are single sentences on what this host cannot do;
// the error is a CreateContainerConfigError in the kubelet's words.
func Container(in Input) (podman.ContainerSpec, []string, error) {
	c := in.Container
	env := envMap(in.Env)
	expand := mapping(env)
	grace := gracePeriod(in.Pod)
	spec := podman.ContainerSpec{
		Name:        Name(in.Pod, c.Name, in.Attempt),
		Image:       in.Image.ID,
		Pod:         in.PodID,
		Labels:      containerLabels(in),
		Entrypoint:  expandAll(c.Command, expand),
		Command:     expandAll(c.Args, expand),
		Env:         env,
		WorkDir:     c.WorkingDir,
		MakeWorkDir: c.WorkingDir != "",
		Terminal:    c.TTY,
		Stdin:       c.Stdin,
		StopTimeout: &grace,
		Hostname:    in.Hostname,
		Log:         podman.LogConfig{Driver: "k8s-file", Path: in.LogPath},
		// The agent restarts and probes; Podman must do neither.
		RestartPolicy: "no",
		Health:        &podman.HealthConfig{Test: []string{"NONE"}},
		Systemd:       "false",
	}
	if len(c.Command) == 0 && len(c.Args) == 0 && len(in.Image.Entrypoint) == 0 && len(in.Image.Cmd) == 0 {
		return spec, nil, fmt.Errorf("no command specified")
	}
	w := &warnings{}
	if err := stopSignal(&spec, in); err != nil {
		return spec, nil, err
	}
	namespaces(&spec, in, w)
	if err := security(&spec, in, w); err != nil {
		return spec, nil, err
	}
	resources(&spec, in, w)
	mounts(&spec, in)
	return spec, w.list, nil
}

type warnings struct{ list []string }

func (w *warnings) add(format string, args ...any) {
	w.list = append(w.list, fmt.Sprintf(format, args...))
}

func gracePeriod(pod *corev1.Pod) uint {
	if g := pod.Spec.TerminationGracePeriodSeconds; g != nil && *g >= 0 {
		return uint(*g)
	}
	return corev1.DefaultTerminationGracePeriodSeconds
}

func envMap(env []string) map[string]string {
	m := make(map[string]string, len(env))
	for _, e := range env {
		k, v, _ := strings.Cut(e, "=")
		m[k] = v
	}
	return m
}

func stopSignal(spec *podman.ContainerSpec, in Input) error {
	if in.Container.Lifecycle == nil || in.Container.Lifecycle.StopSignal == nil {
		return nil // the image's, which Podman takes by itself
	}
	n, err := signalNumber(string(*in.Container.Lifecycle.StopSignal))
	spec.StopSignal = n
	return err
}

func namespaces(spec *podman.ContainerSpec, in Input, w *warnings) {
	ps := in.Pod.Spec
	spec.NetNS = podman.Namespace{Mode: "host"}
	if in.NetNS != "" {
		spec.NetNS = podman.Namespace{Mode: "path", Value: in.NetNS}
	}
	if in.Hostname != "" {
		spec.UtsNS = podman.Namespace{Mode: "private"}
	}
	switch {
	case ps.HostIPC:
		spec.IpcNS = podman.Namespace{Mode: "host"}
	case in.IPC.Pid != 0:
		// By path and not by container: Podman would refuse to remove a container that others name.
		spec.IpcNS = podman.Namespace{Mode: "path", Value: "/proc/" + strconv.Itoa(in.IPC.Pid) + "/ns/ipc"}
	}
	switch {
	case ps.HostPID:
		spec.PidNS = podman.Namespace{Mode: "host"}
	case SharesPID(in.Pod):
		spec.PidNS = podman.Namespace{Mode: "pod"}
	}
	if ps.HostUsers != nil && !*ps.HostUsers {
		if in.Host.Podman.Rootless {
			return // rootless containers are in a user namespace anyway
		}
		w.add("hostUsers: false is not supported with a rootful Podman: the pod runs in the host's user namespace")
	}
}

func mountsOver(list []Mount, path string) bool {
	for _, m := range list {
		if m.ContainerPath == path {
			return true
		}
	}
	return false
}

func mounts(spec *podman.ContainerSpec, in Input) {
	spec.ImageVolumeMode = "ignore"
	if spec.ReadOnlyRootFS {
		spec.ImageVolumeMode = "anonymous" // what an image declares as a volume stays writable
	}
	if m, ok := shm(spec, in); ok {
		spec.Mounts = append(spec.Mounts, m)
	}
	list := in.Mounts
	own := func(host, container string) {
		if host != "" && !mountsOver(in.Mounts, container) {
			list = append(list, Mount{HostPath: host, ContainerPath: container, Relabel: true})
		}
	}
	own(in.Hosts, "/etc/hosts")
	own(in.ResolvConf, "/etc/resolv.conf")
	spec.UseImageHosts = in.Hosts != ""
	spec.UseImageResolvConf = in.ResolvConf != ""
	path := in.Container.TerminationMessagePath
	if path == "" {
		path = corev1.TerminationMessagePathDefault
	}
	own(in.TerminationLog, path)
	for _, m := range list {
		spec.Mounts = append(spec.Mounts, bind(m, in.Host.Podman.SELinux))
	}
}

// shm is what lies on /dev/shm when Podman's own does not do.
func shm(spec *podman.ContainerSpec, in Input) (podman.Mount, bool) {
	const path = "/dev/shm"
	switch {
	case in.Pod.Spec.HostIPC || mountsOver(in.Mounts, path):
		return podman.Mount{}, false
	case in.IPC.ShmDir != "":
		m := bind(Mount{HostPath: in.IPC.ShmDir, ContainerPath: path, Relabel: true}, in.Host.Podman.SELinux)
		m.Options = append(m.Options, "nosuid", "nodev", "noexec")
		return m, true
	case spec.ReadOnlyRootFS: // Podman 5 has it read-only together with the root
		opts := []string{"rw", "nosuid", "nodev", "noexec", "mode=1777", "size=65536k"}
		return podman.Mount{Type: "tmpfs", Source: "tmpfs", Destination: path, Options: opts}, true
	}
	return podman.Mount{}, false
}

func bind(m Mount, selinux bool) podman.Mount {
	opts := []string{"rbind", "rw"}
	if m.ReadOnly {
		opts[1] = "ro"
	}
	switch corev1.MountPropagationMode(m.Propagation) {
	case corev1.MountPropagationHostToContainer:
		opts = append(opts, "rslave")
	case corev1.MountPropagationBidirectional:
		opts = append(opts, "rshared")
	default:
		opts = append(opts, "rprivate")
	}
	if selinux && m.Relabel {
		opts = append(opts, "z")
	}
	return podman.Mount{Type: "bind", Source: m.HostPath, Destination: m.ContainerPath, Options: opts}
}
