package cli

import (
	"bytes"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/spf13/cobra"
	"k8s.io/cli-runtime/pkg/genericclioptions"
	"k8s.io/cli-runtime/pkg/genericiooptions"
	"k8s.io/kubectl/pkg/cmd"
	"k8s.io/kubectl/pkg/cmd/util"
)

func environment(vars map[string]string, files ...string) Environment {
	return Environment{
		Home:   "/home/ann",
		Getenv: func(k string) string { return vars[k] },
		Denied: func(string) bool { return false },
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

func TestNowhere(t *testing.T) {
	const root = "/var/lib/podman-swarm/admin.kubeconfig"
	closed := environment(nil)
	closed.Denied = func(path string) bool { return path == root }
	for name, tc := range map[string]struct {
		env  Environment
		args string
		want string // in what is printed; empty: the server is asked
	}{
		"nothing":                {environment(nil), "get pods", "podman-swarm init"},
		"not for this user":      {closed, "get pods", "you may not read " + root},
		"our own verbs":          {closed, "swarm status", "you may not read " + root},
		"a server by flag":       {environment(nil), "get pods --server=http://127.0.0.1:1", ""},
		"a server by variable":   {environment(map[string]string{"PSCTL_SERVER": "http://127.0.0.1:1"}), "get pods", ""},
		"kubectl's own file":     {environment(nil, "/home/ann/.kube/config"), "get pods --server=http://127.0.0.1:1", ""},
		"inside of a pod":        {environment(map[string]string{"KUBERNETES_SERVICE_HOST": "127.0.0.1"}), "get pods --server=http://127.0.0.1:1", ""},
		"nobody needs to answer": {environment(nil), "create configmap x --dry-run=client -o name", "configmap/x"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Setenv("KUBECONFIG", "/nonexistent")
			var fatal string
			util.BehaviorOnFatal(func(text string, _ int) { fatal = text })
			defer util.DefaultBehaviorOnFatal()
			c, out := command(t, tc.env, strings.Fields(tc.args)...)
			if err := c.Execute(); err != nil {
				fatal += err.Error()
			}
			said := fatal + out.String()
			if tc.want == "" && !strings.Contains(said, "127.0.0.1:1") || !strings.Contains(said, tc.want) {
				t.Errorf("psctl %s says %q, want %q", tc.args, said, tc.want)
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

// TestSwarmComesFirst: our verbs lead the help, and upstream's groups follow as upstream has them.
func TestSwarmComesFirst(t *testing.T) {
	upstream := cmd.NewKubectlCommand(cmd.KubectlOptions{ConfigFlags: genericclioptions.NewConfigFlags(true), IOStreams: genericiooptions.NewTestIOStreamsDiscard()})
	groupsOf := func(help string) string {
		_, help, _ = strings.Cut(help, "Commands")
		help, _, _ = strings.Cut(help, "Usage:")
		return "Commands" + help
	}
	ours, _ := command(t, environment(nil))
	own, rest, ok := strings.Cut(groupsOf(ours.UsageString()), "Basic ")
	want := groupsOf(kubectlWord.ReplaceAllString(upstream.UsageString(), "psctl$1"))
	if !ok || "Basic "+rest != "Basic "+want {
		t.Errorf("groups differ from upstream's: have\n%s\nwant\n%s", rest, want)
	}
	for _, verb := range ownVerbs() {
		if !strings.Contains(own, "\n  "+verb+" ") {
			t.Errorf("%s is not in the first group: %s", verb, own)
		}
	}
}

// TestPluginsDoNotTakeOurVerbs: kubectl-node and the like are found on many machines.
func TestPluginsDoNotTakeOurVerbs(t *testing.T) {
	for line, want := range map[string]bool{
		"psctl": false, "psctl swarm": true, "psctl node ls": true, "psctl get node": false,
		"psctl --kubeconfig F swarm status": true, "psctl -s URL node ls": true, "psctl --server=URL -v=6 swarm": true, "psctl -v 6 swarm": true,
		"psctl --match-server-version --context=c swarm status": true, "psctl --warnings-as-errors --password P node ls": true,
		"psctl --context swarm get pods": false, "psctl -n node foo": false, "psctl -s URL get node": false, "psctl --help": false,
		"psctl --no-such-flag swarm": false, "psctl -s": false, "psctl -s URL foo": false,
	} {
		if have := isOwn(strings.Fields(line)); have != want {
			t.Errorf("%s: %v", line, have)
		}
	}
}

func TestOurVerbsReachTheServerOfTheFlags(t *testing.T) {
	var path, token string
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		path, token = r.URL.Path, r.Header.Get("Authorization")
		_, _ = io.WriteString(w, `{"items":[{"name":"ant","state":"alive"}]}`)
	}))
	defer s.Close()
	byVariable := map[string]string{"PSCTL_SERVER": s.URL, "PSCTL_TOKEN": "s3cret"}
	for line, vars := range map[string]map[string]string{
		"swarm members --no-headers":                                             byVariable,
		"swarm members --no-headers -s " + s.URL:                                 nil,
		"-s " + s.URL + " swarm members --no-headers":                            nil,
		"--server=" + s.URL + " --request-timeout 5s swarm members --no-headers": nil,
	} {
		path = ""
		c, out := command(t, environment(vars), strings.Fields(line)...)
		if err := c.Execute(); err != nil {
			t.Fatal(err)
		}
		// client-go sends tokens over TLS only.
		if path != "/swarm/v1/members" || !strings.HasPrefix(out.String(), "ant ") {
			t.Errorf("psctl %s: asked %s with %q, printed %s", line, path, token, out)
		}
	}
}
