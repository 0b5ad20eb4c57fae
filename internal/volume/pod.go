package volume

import (
	"path/filepath"
	"reflect"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
)

// containers visits all containers of a pod, ephemeral ones included.
func containers(pod *corev1.Pod, visit func(*corev1.Container)) {
	for i := range pod.Spec.InitContainers {
		visit(&pod.Spec.InitContainers[i])
	}
	for i := range pod.Spec.Containers {
		visit(&pod.Spec.Containers[i])
	}
	for i := range pod.Spec.EphemeralContainers {
		c := corev1.Container(pod.Spec.EphemeralContainers[i].EphemeralContainerCommon)
		visit(&c)
	}
}

func usedVolumes(pod *corev1.Pod) map[string]bool {
	used := map[string]bool{}
	containers(pod, func(c *corev1.Container) {
		for _, m := range c.VolumeMounts {
			used[m.Name] = true
		}
		for _, d := range c.VolumeDevices {
			used[d.Name] = true
		}
	})
	return used
}

func fsGroup(pod *corev1.Pod) *int64 {
	if pod.Spec.SecurityContext == nil {
		return nil
	}
	return pod.Spec.SecurityContext.FSGroup
}

// tokenUser is the user that token files belong to: the one that all containers of the pod run as,
// nil when they do not say or differ. The kubelet's rule.
func tokenUser(pod *corev1.Pod) *int64 {
	var user *int64
	same := true
	containers(pod, func(c *corev1.Container) {
		var of *int64
		if sc := pod.Spec.SecurityContext; sc != nil {
			of = sc.RunAsUser
		}
		if sc := c.SecurityContext; sc != nil && sc.RunAsUser != nil {
			of = sc.RunAsUser
		}
		if of == nil || (user != nil && *user != *of) {
			same = false
			return
		}
		user = of
	})
	if !same {
		return nil
	}
	return user
}

// typeName is how a manifest names the type of a volume.
func typeName(vol *corev1.Volume) string {
	src := reflect.ValueOf(vol.VolumeSource)
	for i := range src.NumField() {
		if !src.Field(i).IsNil() {
			name, _, _ := strings.Cut(src.Type().Field(i).Tag.Get("json"), ",")
			return name
		}
	}
	return "none"
}

// nestedMountPoints are the directories below a volume that containers mount other volumes on, relative to
// it. They must exist in a volume that is mounted read-only. Doubly nested ones are the inner volume's.
func nestedMountPoints(pod *corev1.Pod, name string) []string {
	var dirs []string
	containers(pod, func(c *corev1.Container) {
		var all, mine []string
		for _, m := range c.VolumeMounts {
			p := filepath.Clean("/" + m.MountPath)
			all = append(all, p)
			if m.Name == name && m.SubPath == "" && m.SubPathExpr == "" {
				mine = append(mine, p)
			}
		}
		slices.Sort(all)
		for _, base := range mine {
			var outer []string
			for _, p := range all {
				rel, ok := strings.CutPrefix(p, strings.TrimSuffix(base, "/")+"/")
				if !ok || slices.ContainsFunc(outer, func(o string) bool { return strings.HasPrefix(p, o) }) {
					continue
				}
				outer = append(outer, p+"/")
				dirs = append(dirs, rel)
			}
		}
	})
	return dirs
}

// Uses says whether a pod's volumes read this object (kind "ConfigMap" or "Secret", in the pod's namespace).
func Uses(pod *corev1.Pod, kind, name string) bool {
	used := usedVolumes(pod)
	for i := range pod.Spec.Volumes {
		vol := &pod.Spec.Volumes[i]
		if used[vol.Name] && slices.Contains(references(vol), kind+"/"+name) {
			return true
		}
	}
	return false
}

// references lists the objects that a volume reads, as "Kind/name".
func references(vol *corev1.Volume) []string {
	var refs []string
	if vol.ConfigMap != nil {
		refs = append(refs, "ConfigMap/"+vol.ConfigMap.Name)
	}
	if vol.Secret != nil {
		refs = append(refs, "Secret/"+vol.Secret.SecretName)
	}
	if vol.Projected != nil {
		for _, s := range vol.Projected.Sources {
			if s.ConfigMap != nil {
				refs = append(refs, "ConfigMap/"+s.ConfigMap.Name)
			}
			if s.Secret != nil {
				refs = append(refs, "Secret/"+s.Secret.Name)
			}
		}
	}
	return refs
}

// within says whether path is dir or below it; both are clean.
func within(path, dir string) bool {
	return path == dir || strings.HasPrefix(path, dir+"/")
}
