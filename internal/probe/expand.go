package probe

import (
	corev1 "k8s.io/api/core/v1"

	"github.com/podman-swarm/podman-swarm/internal/expand"
)

// expandCommand replaces $(NAME) in a probe's command by the values that the container's env gives literally,
// as upstream does for probes. $$ stands for one $; an unknown reference stays as it is.
func expandCommand(cmd []string, env []corev1.EnvVar) []string {
	values := make(map[string]string, len(env))
	for _, e := range env {
		values[e.Name] = e.Value
	}
	lookup := func(name string) (string, bool) { v, ok := values[name]; return v, ok }
	out := make([]string, len(cmd))
	for i, c := range cmd {
		out[i] = expand.Vars(c, lookup)
	}
	return out
}
