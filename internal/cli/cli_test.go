package cli

import (
	"bytes"
	"strings"
	"testing"

	"github.com/spf13/cobra"
	"k8s.io/cli-runtime/pkg/genericiooptions"
)

func environment(vars map[string]string, files ...string) Environment {
	return Environment{
		Home:   "/home/ann",
		Getenv: func(k string) string { return vars[k] },
		Readable: func(path string) bool {
			for _, f := range files {
				if f == path {
					return true
				}
			}
			return false
		},
	}
}

func TestKubeconfigOrder(t *testing.T) {
	const own, user, root = "/home/ann/.psctl/config", "/home/ann/.local/share/podman-swarm/admin.kubeconfig", "/var/lib/podman-swarm/admin.kubeconfig"
	for _, tc := range []struct {
		name string
		env  Environment
		want string
	}{
		{"nothing", environment(nil), ""},
		{"own file first", environment(nil, own, user, root), own},
		{"then the user's node", environment(nil, user, root), user},
		{"then the machine's node", environment(nil, root), root},
		{"KUBECONFIG wins", environment(map[string]string{"KUBECONFIG": "/x"}, own), ""},
		{"XDG_DATA_HOME", environment(map[string]string{"XDG_DATA_HOME": "/data"}, "/data/podman-swarm/admin.kubeconfig"), "/data/podman-swarm/admin.kubeconfig"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			if got := tc.env.kubeconfig(); got != tc.want {
				t.Errorf("kubeconfig() = %q, want %q", got, tc.want)
			}
		})
	}
}

func command(t *testing.T, env Environment, args ...string) (*cobra.Command, *bytes.Buffer) {
	t.Helper()
	out := &bytes.Buffer{}
	streams := genericiooptions.IOStreams{In: &bytes.Buffer{}, Out: out, ErrOut: out}
	c := New(env, streams, append([]string{"psctl"}, args...))
	c.SetArgs(args)
	c.SetOut(out)
	c.SetErr(out)
	return c, out
}

func TestHelpSpeaksOfPsctl(t *testing.T) {
	c, _ := command(t, environment(nil))
	var walk func(*cobra.Command)
	walk = func(c *cobra.Command) {
		for _, text := range []string{c.Short, c.Long, c.Example} {
			for line := range strings.Lines(text) {
				if strings.Contains(line, "  kubectl ") {
					t.Errorf("%s: help still says %q", c.CommandPath(), strings.TrimSpace(line))
				}
			}
		}
		for _, sub := range c.Commands() {
			walk(sub)
		}
	}
	walk(c)
}

// TestCommandTree fails when upstream's tree changes, so that the compatibility page is looked at.
func TestCommandTree(t *testing.T) {
	c, _ := command(t, environment(nil))
	have := map[string]bool{}
	for _, sub := range c.Commands() {
		have[sub.Name()] = true
	}
	for _, want := range strings.Fields(`annotate api-resources api-versions apply attach auth autoscale certificate
		cluster-info completion config cordon cp create debug delete describe diff drain edit events exec explain
		expose get kustomize label logs options patch plugin port-forward proxy replace rollout run scale set taint
		top uncordon version wait`) {
		if !have[want] {
			t.Errorf("command %q is missing", want)
		}
	}
}

func TestCompletionFor(t *testing.T) {
	for _, shell := range []string{"bash", "zsh", "fish"} {
		c, out := command(t, environment(nil), "completion", shell)
		if err := c.Execute(); err != nil {
			t.Fatal(err)
		}
		if !strings.Contains(out.String(), "psctl") || strings.Contains(out.String(), "__start_kubectl") {
			t.Errorf("%s completion is not psctl's: %.200s", shell, out)
		}
	}
}

func TestServerAndTokenFromEnvironment(t *testing.T) {
	c, _ := command(t, environment(map[string]string{"PSCTL_SERVER": "https://a:6443", "PSCTL_TOKEN": "s3cret"}))
	for flag, want := range map[string]string{"server": "https://a:6443", "token": "s3cret"} {
		if got := c.PersistentFlags().Lookup(flag).Value.String(); got != want {
			t.Errorf("--%s = %q, want %q", flag, got, want)
		}
	}
}
