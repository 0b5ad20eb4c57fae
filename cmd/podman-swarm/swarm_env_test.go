package main

import (
	"strings"
	"testing"

	"github.com/spf13/cobra"
	"pgregory.net/rapid"
)

// tree is a program with three commands that remember their flags.
func tree(environ []string, did *string) *cobra.Command {
	root := &cobra.Command{Use: "p", SilenceErrors: true, SilenceUsage: true}
	root.PersistentPreRunE = func(c *cobra.Command, _ []string) error { return fillFromEnvironment(c, environ) }
	for _, name := range []string{"agent", "reset", "child"} {
		c := &cobra.Command{Use: name, Hidden: name == "child"}
		addr := c.Flags().String("bind-addr", "default", "")
		yes := c.Flags().Bool("yes", false, "")
		uses := c.Flags().Int("uses", 1, "")
		if name == "reset" {
			c.Flags().String("only-here", "", "")
		}
		c.RunE = func(*cobra.Command, []string) error {
			*did = strings.Join([]string{*addr, map[bool]string{true: "yes", false: "no"}[*yes], strings.Repeat("u", *uses)}, " ")
			return nil
		}
		root.AddCommand(c)
	}
	return root
}

func TestEnvironment(t *testing.T) {
	for _, tc := range []struct {
		name, environ, line, want, err string
	}{
		{"default", "", "agent", "default no u", ""},
		{"environment over default", "PODMAN_SWARM_BIND_ADDR=env PODMAN_SWARM_USES=3", "agent", "env no uuu", ""},
		{"flag over environment", "PODMAN_SWARM_BIND_ADDR=env", "agent --bind-addr flag", "flag no u", ""},
		{"flag at its default over environment", "PODMAN_SWARM_BIND_ADDR=env", "agent --bind-addr default", "default no u", ""},
		{"the last one counts", "PODMAN_SWARM_BIND_ADDR=a PODMAN_SWARM_BIND_ADDR=b", "agent", "b no u", ""},
		{"empty is not set", "PODMAN_SWARM_USES=", "agent", "default no u", ""},
		{"another command's", "PODMAN_SWARM_ONLY_HERE=x", "agent", "default no u", ""},
		{"not ours", "PODMAN_SWARMS=x HOME=/", "agent", "default no u", ""},
		{"bad value", "PODMAN_SWARM_USES=many", "agent", "", `PODMAN_SWARM_USES=many: invalid argument "many" for "--uses" flag: strconv.ParseInt: parsing "many": invalid syntax`},
		{"unknown", "PODMAN_SWARM_BINDADR=x", "agent", "", "PODMAN_SWARM_BINDADR is set, but there is no such setting: did you mean PODMAN_SWARM_BIND_ADDR?"},
		{"all that is wrong", "PODMAN_SWARM_USE=1 PODMAN_SWARM_YES=true", "agent", "", "PODMAN_SWARM_USE is set, but there is no such setting: did you mean PODMAN_SWARM_USES?\nPODMAN_SWARM_YES is set, but --yes must be typed"},
		{"children of the agent inherit", "PODMAN_SWARM_USES=3 PODMAN_SWARM_X=1", "child", "default no u", ""},
	} {
		t.Run(tc.name, func(t *testing.T) {
			var did string
			root := tree(strings.Fields(tc.environ), &did)
			root.SetArgs(strings.Fields(tc.line))
			err := root.ExecuteContext(t.Context())
			if did != tc.want || (err == nil) != (tc.err == "") || err != nil && err.Error() != tc.err {
				t.Errorf("have %q (%v)\nwant %q (%s)", did, err, tc.want, tc.err)
			}
		})
	}
}

// TestEnvironmentOverFile: the whole order, with the agent's own flags and a file.
func TestEnvironmentOverFile(t *testing.T) {
	m := newMachine(t)
	m.systemd = false
	file := t.TempDir() + "/c.yaml"
	write(t, file, "nodeName: file\nlogLevel: warn\n")
	m.environ = []string{"PODMAN_SWARM_CONFIG=" + file, "PODMAN_SWARM_DATA_DIR=" + m.dir, "PODMAN_SWARM_NODE_NAME=env"}
	for _, line := range []string{"init", "init --node-name flag", "init --node-name flag --log-level error"} {
		if _, _, err := m.run(t, line); err != nil {
			t.Fatal(err)
		}
	}
	m.expect(t, "init env warn\ninit flag warn\ninit flag error")
}

func TestDistance(t *testing.T) {
	if d := distance("kitten", "sitting"); d != 3 {
		t.Errorf("kitten to sitting: %d", d)
	}
	rapid.Check(t, func(t *rapid.T) {
		word := rapid.StringOfN(rapid.RuneFrom([]rune("ab")), 0, 6, -1)
		a, b, c := word.Draw(t, "a"), word.Draw(t, "b"), word.Draw(t, "c")
		if distance(a, a) != 0 || distance(a, b) != distance(b, a) || distance(a, c) > distance(a, b)+distance(b, c) || (distance(a, b) == 0) != (a == b) {
			t.Fatalf("%q %q %q: no distance", a, b, c)
		}
	})
}
