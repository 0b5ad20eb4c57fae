package cli

import (
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"k8s.io/cli-runtime/pkg/genericclioptions"
	"k8s.io/cli-runtime/pkg/genericiooptions"
	"k8s.io/client-go/kubernetes"
	"k8s.io/kubectl/pkg/cmd"
	"k8s.io/kubectl/pkg/cmd/drain"
	"k8s.io/kubectl/pkg/cmd/plugin"
	"k8s.io/kubectl/pkg/cmd/util"
	"k8s.io/kubectl/pkg/util/templates"

	"github.com/podman-swarm/podman-swarm/internal/cli/reach"
	"github.com/podman-swarm/podman-swarm/internal/cli/show"
	"github.com/podman-swarm/podman-swarm/internal/cli/verbs"
	"github.com/podman-swarm/podman-swarm/internal/swarm"
)

// ownVerbs are the commands kubectl does not have.
func ownVerbs() []string { return []string{"swarm", "node"} }

// isOwn tells whether a command line is for one of our verbs: then no plugin of kubectl's may take
// it, although kubectl's tree does not know it.
func isOwn(args []string) bool {
	if len(args) < 2 {
		return false
	}
	if !strings.HasPrefix(args[1], "-") {
		return slices.Contains(ownVerbs(), args[1])
	}
	// Which words are the values of flags, only a tree with kubectl's flags can tell.
	probe := cmd.NewKubectlCommand(cmd.KubectlOptions{
		ConfigFlags: genericclioptions.NewConfigFlags(true).WithDeprecatedPasswordFlag(), IOStreams: genericiooptions.NewTestIOStreamsDiscard(),
	})
	for _, verb := range ownVerbs() {
		probe.AddCommand(&cobra.Command{Use: verb})
	}
	found, _, err := probe.Find(args[1:])
	return err == nil && found.Parent() == probe && slices.Contains(ownVerbs(), found.Name())
}

// addVerbs puts the swarm's verbs into kubectl's tree, and first in its help.
func addVerbs(root *cobra.Command, flags *genericclioptions.ConfigFlags, streams genericiooptions.IOStreams) {
	f := util.NewFactory(util.NewMatchVersionFlags(flags))
	host := verbs.Host{
		Streams: streams, Now: time.Now, AtTerminal: show.AtTerminal(streams.In),
		Swarm: func() (*swarm.Client, error) {
			cfg, err := f.ToRESTConfig()
			if err != nil {
				return nil, err
			}
			return reach.Client(cfg)
		},
		Kube: func() (kubernetes.Interface, error) { return f.KubernetesClientSet() },
	}
	own := templates.CommandGroup{Message: "Swarm Commands:", Commands: []*cobra.Command{
		verbs.Swarm(host),
		verbs.Node(host, drain.NewCmdDrain(f, streams), drain.NewCmdCordon(f, streams), drain.NewCmdUncordon(f, streams)),
	}}
	plugins := plugin.GetPluginCommandGroup(root)
	upstream := groups(root, plugins.Message)
	root.AddCommand(own.Commands...)
	var hidden []string
	for _, c := range root.Commands() {
		if c.Name() == "options" || c.Name() == "alpha" && !c.HasSubCommands() { // as upstream
			hidden = append(hidden, c.Name())
		}
	}
	all := append(templates.CommandGroups{own}, upstream...)
	templates.ActsAsRootCommand(root, hidden, append(all, plugins)...)
}

// groups reads the groups of kubectl's help out of that help: upstream keeps them to itself. What is
// in no group, and what comes at the end, finds itself.
func groups(root *cobra.Command, end string) templates.CommandGroups {
	var all templates.CommandGroups
	for line := range strings.Lines(root.UsageString()) {
		text := strings.TrimSpace(line)
		switch {
		case text == "Other Commands:" || text == "Usage:" || text == end:
			return all
		case strings.HasSuffix(text, ":"):
			all = append(all, templates.CommandGroup{Message: text})
		case len(all) > 0:
			name, _, _ := strings.Cut(text, " ")
			if c, _, err := root.Find([]string{name}); err == nil && c != root {
				all[len(all)-1].Commands = append(all[len(all)-1].Commands, c)
			}
		}
	}
	return all
}
