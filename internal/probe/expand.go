package probe

import (
	"strings"

	corev1 "k8s.io/api/core/v1"
)

// expandCommand replaces $(NAME) in a probe's command by the values that the container's env gives literally,
// as upstream does for probes. $$ stands for one $; an unknown reference stays as it is.
func expandCommand(cmd []string, env []corev1.EnvVar) []string {
	values := make(map[string]string, len(env))
	for _, e := range env {
		values[e.Name] = e.Value
	}
	out := make([]string, len(cmd))
	for i, c := range cmd {
		out[i] = expand(c, values)
	}
	return out
}

func expand(s string, values map[string]string) string {
	if !strings.Contains(s, "$") {
		return s
	}
	var b strings.Builder
	for i := 0; i < len(s); i++ {
		if s[i] != '$' || i+1 == len(s) {
			b.WriteByte(s[i])
			continue
		}
		end := -1
		if s[i+1] == '(' {
			end = strings.IndexByte(s[i+2:], ')')
		}
		switch {
		case s[i+1] == '$':
			b.WriteByte('$')
			i++
		case end < 0:
			b.WriteByte('$')
		default:
			name := s[i+2 : i+2+end]
			if v, ok := values[name]; ok {
				b.WriteString(v)
			} else {
				b.WriteString("$(" + name + ")")
			}
			i += end + 2
		}
	}
	return b.String()
}
