package podspec

import "github.com/podman-swarm/podman-swarm/internal/expand"

// mapping looks a name up in several maps, first one first.
func mapping(maps ...map[string]string) func(string) (string, bool) {
	return func(name string) (string, bool) {
		for _, m := range maps {
			if v, ok := m[name]; ok {
				return v, true
			}
		}
		return "", false
	}
}

func expandAll(list []string, lookup func(string) (string, bool)) []string {
	var out []string
	for _, s := range list {
		out = append(out, expand.Vars(s, lookup))
	}
	return out
}
