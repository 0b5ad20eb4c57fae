package podspec

import (
	"fmt"
	"maps"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	corev1 "k8s.io/api/core/v1"

	"github.com/podman-swarm/podman-swarm/internal/podman"
)

// identity is who a container runs as: the container's word over the pod's.
type identity struct {
	user, group *int64
	nonRoot     bool
}

func identityOf(pod *corev1.Pod, c *corev1.Container) identity {
	var id identity
	if sc := pod.Spec.SecurityContext; sc != nil {
		id.user, id.group = sc.RunAsUser, sc.RunAsGroup
		id.nonRoot = sc.RunAsNonRoot != nil && *sc.RunAsNonRoot
	}
	if sc := c.SecurityContext; sc != nil {
		if sc.RunAsUser != nil {
			id.user = sc.RunAsUser
		}
		if sc.RunAsGroup != nil {
			id.group = sc.RunAsGroup
		}
		if sc.RunAsNonRoot != nil {
			id.nonRoot = *sc.RunAsNonRoot
		}
	}
	return id
}

// checkNonRoot has the kubelet's error texts.
func checkNonRoot(id identity, in Input) error {
	if !id.nonRoot {
		return nil
	}
	pod := fmt.Sprintf("%s_%s(%s)", in.Pod.Name, in.Pod.Namespace, in.Pod.UID)
	if id.user != nil {
		if *id.user == 0 {
			return fmt.Errorf("container's runAsUser breaks non-root policy (pod: %q, container: %s)", pod, in.Container.Name)
		}
		return nil
	}
	name, _, _ := strings.Cut(in.Image.User, ":")
	if name == "" {
		name = "0"
	}
	uid, err := strconv.ParseInt(name, 10, 64)
	switch {
	case err != nil:
		return fmt.Errorf("container has runAsNonRoot and image has non-numeric user (%s), cannot verify user is non-root (pod: %q, container: %s)",
			name, pod, in.Container.Name)
	case uid == 0:
		return fmt.Errorf("container has runAsNonRoot and image will run as root (pod: %q, container: %s)", pod, in.Container.Name)
	}
	return nil
}

// userString is Podman's user; empty is the image's.
func userString(id identity, image podman.Image) string {
	if id.user == nil && id.group == nil {
		return ""
	}
	user, _, _ := strings.Cut(image.User, ":")
	if id.user != nil {
		user = strconv.FormatInt(*id.user, 10)
	}
	if id.group == nil {
		return user
	}
	if user == "" {
		user = "0"
	}
	return user + ":" + strconv.FormatInt(*id.group, 10)
}

func security(spec *podman.ContainerSpec, in Input, w *warnings) error {
	id := identityOf(in.Pod, in.Container)
	if err := checkNonRoot(id, in); err != nil {
		return err
	}
	spec.User = userString(id, in.Image)
	if in.NetNS != "" {
		spec.Sysctl = maps.Clone(in.Host.Sysctls)
	}
	podContext(spec, in.Pod.Spec.SecurityContext, w)
	if err := checkIDs(id, spec.Groups, in.Host.Podman.MaxUID); err != nil {
		return err
	}
	if sc := in.Container.SecurityContext; sc != nil {
		spec.Privileged = sc.Privileged != nil && *sc.Privileged
		spec.ReadOnlyRootFS = sc.ReadOnlyRootFilesystem != nil && *sc.ReadOnlyRootFilesystem
		spec.NoNewPrivs = sc.AllowPrivilegeEscalation != nil && !*sc.AllowPrivilegeEscalation
		if sc.Capabilities != nil {
			spec.CapAdd, spec.CapDrop = capNames(sc.Capabilities.Add), capNames(sc.Capabilities.Drop)
		}
		if sc.ProcMount != nil && *sc.ProcMount == corev1.UnmaskedProcMount {
			spec.Unmask = []string{"ALL"}
		}
	}
	if spec.ReadOnlyRootFS {
		no := false
		spec.ReadWriteTmpfs = &no // Kubernetes' read-only root has no writable /tmp
	}
	if err := seccomp(spec, in, w); err != nil {
		return err
	}
	selinux(spec, in)
	appArmor(in, w)
	return nil
}

func podContext(spec *podman.ContainerSpec, sc *corev1.PodSecurityContext, w *warnings) {
	if sc == nil {
		return
	}
	groups := slices.Clone(sc.SupplementalGroups)
	if sc.FSGroup != nil {
		groups = append(groups, *sc.FSGroup)
	}
	slices.Sort(groups)
	for _, g := range slices.Compact(groups) {
		spec.Groups = append(spec.Groups, strconv.FormatInt(g, 10))
	}
	for _, s := range sc.Sysctls {
		if spec.Sysctl == nil {
			spec.Sysctl = map[string]string{}
		}
		spec.Sysctl[strings.ReplaceAll(s.Name, "/", ".")] = s.Value
	}
	if sc.SupplementalGroupsPolicy != nil && *sc.SupplementalGroupsPolicy == corev1.SupplementalGroupsPolicyStrict {
		w.add("supplementalGroupsPolicy Strict is not supported: groups that the image gives its user are kept")
	}
}

// checkIDs refuses what a rootless Podman's range of IDs cannot hold, before the runtime does so less clearly.
func checkIDs(id identity, groups []string, largest int64) error {
	if largest <= 0 {
		return nil
	}
	check := func(what string, v *int64) error {
		if v != nil && *v > largest {
			return fmt.Errorf("%s %d is outside the IDs of this rootless Podman (0-%d): add to /etc/subuid and /etc/subgid", what, *v, largest)
		}
		return nil
	}
	if err := check("runAsUser", id.user); err != nil {
		return err
	}
	if err := check("runAsGroup", id.group); err != nil {
		return err
	}
	for _, g := range groups {
		v, err := strconv.ParseInt(g, 10, 64)
		if err != nil {
			return fmt.Errorf("group %q: %w", g, err)
		}
		if err := check("group", &v); err != nil {
			return err
		}
	}
	return nil
}

// capNames are Podman's names: Kubernetes leaves CAP_ out and knows ALL.
func capNames(list []corev1.Capability) []string {
	var out []string
	for _, c := range list {
		name := strings.ToUpper(string(c))
		if name != "ALL" && !strings.HasPrefix(name, "CAP_") {
			name = "CAP_" + name
		}
		out = append(out, name)
	}
	return out
}

// seccomp: without a word Podman's default profile applies (the kubelet's seccompDefault: true).
func seccomp(spec *podman.ContainerSpec, in Input, w *warnings) error {
	var p *corev1.SeccompProfile
	if sc := in.Pod.Spec.SecurityContext; sc != nil {
		p = sc.SeccompProfile
	}
	if sc := in.Container.SecurityContext; sc != nil && sc.SeccompProfile != nil {
		p = sc.SeccompProfile
	}
	if p == nil {
		return nil
	}
	if !in.Host.Podman.Seccomp && p.Type != corev1.SeccompProfileTypeUnconfined {
		w.add("seccompProfile %s is ignored: this host's Podman has no seccomp", p.Type)
		return nil
	}
	switch p.Type {
	case corev1.SeccompProfileTypeUnconfined:
		spec.SeccompProfile = "unconfined"
	case corev1.SeccompProfileTypeLocalhost:
		if p.LocalhostProfile == nil || *p.LocalhostProfile == "" {
			return fmt.Errorf("localhostProfile must be set if seccompProfile type is Localhost")
		}
		if !filepath.IsLocal(*p.LocalhostProfile) {
			return fmt.Errorf("localhostProfile %q leaves the directory of seccomp profiles", *p.LocalhostProfile)
		}
		spec.SeccompProfile = filepath.Join(in.Host.SeccompDir, *p.LocalhostProfile)
	case corev1.SeccompProfileTypeRuntimeDefault:
	default:
		return fmt.Errorf("unknown seccompProfile type %q", p.Type)
	}
	return nil
}

func selinux(spec *podman.ContainerSpec, in Input) {
	if !in.Host.Podman.SELinux {
		return
	}
	var o *corev1.SELinuxOptions
	if sc := in.Pod.Spec.SecurityContext; sc != nil {
		o = sc.SELinuxOptions
	}
	if sc := in.Container.SecurityContext; sc != nil && sc.SELinuxOptions != nil {
		o = sc.SELinuxOptions
	}
	if o == nil {
		return
	}
	for _, f := range []struct{ key, value string }{{"user", o.User}, {"role", o.Role}, {"type", o.Type}, {"level", o.Level}} {
		if f.value != "" {
			spec.SelinuxOpts = append(spec.SelinuxOpts, f.key+":"+f.value)
		}
	}
}

// appArmor: Podman loads its own profile where it can; naming another one is not offered.
func appArmor(in Input, w *warnings) {
	var p *corev1.AppArmorProfile
	if sc := in.Pod.Spec.SecurityContext; sc != nil {
		p = sc.AppArmorProfile
	}
	if sc := in.Container.SecurityContext; sc != nil && sc.AppArmorProfile != nil {
		p = sc.AppArmorProfile
	}
	if p != nil && p.Type != corev1.AppArmorProfileTypeRuntimeDefault {
		w.add("appArmorProfile %s is ignored: Podman's own profile applies where the host has AppArmor", p.Type)
	}
}
