//go:build e2e

package cluster

import (
	"os/exec"
	"slices"
	"strings"
	"testing"

	"github.com/podman-swarm/podman-swarm/test/lab"
)

// TestOperationsNames: every command and flag that docs/operations.md names is one.
func TestOperationsNames(t *testing.T) {
	h, err := lab.New("../..", "h1")
	check(t, err)
	help := func(program string, args ...string) string {
		t.Helper()
		out, err := exec.CommandContext(t.Context(), h.Bin(program), args...).CombinedOutput()
		if err != nil {
			t.Fatalf("%s %s: %v\n%s", program, strings.Join(args, " "), err, out)
		}
		return string(out)
	}
	options := help("psctl", "options")
	for _, m := range mentions(readHandbook(t)) {
		text := help(m.program, append(slices.Clone(m.words), "--help")...)
		usage := usageOf(text)
		groupOnly := strings.Contains(text, "Available Commands:") && len(m.words) >= len(usage) // the help of what is above it
		if groupOnly || len(usage) < 2 || !slices.Equal(usage[1:], m.words[:min(len(usage)-1, len(m.words))]) {
			t.Errorf("%s: is no command; the nearest is %q", m, usage)
		}
		if m.program == "psctl" {
			text += options
		}
		for _, f := range m.flags {
			if !strings.Contains(text, f) && f != "--help" {
				t.Errorf("%s: has no flag %s", m, f)
			}
		}
	}
}

// usageOf are the words of the command that a help text is about, from its line of usage.
func usageOf(help string) []string {
	_, usage, _ := strings.Cut(help, "Usage:\n")
	line, _, _ := strings.Cut(usage, "\n")
	var words []string
	for _, w := range strings.Fields(line) {
		if !verb.MatchString(w) {
			break
		}
		words = append(words, w)
	}
	return words
}
