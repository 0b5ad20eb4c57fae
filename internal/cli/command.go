package cli

import (
	"io"
	"os"
	"regexp"

	"github.com/spf13/cobra"
	"k8s.io/cli-runtime/pkg/genericclioptions"
	"k8s.io/cli-runtime/pkg/genericiooptions"
	"k8s.io/component-base/cli"
	"k8s.io/component-base/logs"
	"k8s.io/kubectl/pkg/cmd"
	"k8s.io/kubectl/pkg/cmd/plugin"
	"k8s.io/kubectl/pkg/cmd/util"
)

// Main runs psctl with the process's arguments and exits with kubectl's exit codes.
func Main() {
	// As upstream's main does: command construction already logs, before flags are parsed.
	_, _ = logs.GlogSetter(cmd.GetLogVerbosity(os.Args))
	env := HostEnvironment()
	if path := env.kubeconfig(); path != "" {
		// Both the client configuration and the `config` subcommands read this variable.
		_ = os.Setenv("KUBECONFIG", path)
	}
	streams := genericiooptions.IOStreams{In: os.Stdin, Out: os.Stdout, ErrOut: os.Stderr}
	if err := cli.RunNoErrOutput(New(env, streams, os.Args)); err != nil {
		util.CheckErr(err)
	}
}

// New returns the psctl command tree.
func New(env Environment, streams genericiooptions.IOStreams, args []string) *cobra.Command {
	flags := genericclioptions.NewConfigFlags(true).
		WithDeprecatedPasswordFlag().WithDiscoveryBurst(300).WithDiscoveryQPS(50).WithWarningPrinter(streams)
	if server := env.Getenv("PSCTL_SERVER"); server != "" {
		*flags.APIServer = server
	}
	if token := env.Getenv("PSCTL_TOKEN"); token != "" {
		*flags.BearerToken = token
	}
	if err := env.nowhere(); err != nil {
		refuse(flags, err)
	}
	options := cmd.KubectlOptions{Arguments: args, ConfigFlags: flags, IOStreams: streams}
	if !isOwn(args) {
		options.PluginHandler = cmd.NewDefaultPluginHandler([]string{"psctl", plugin.ValidPluginFilenamePrefixes[0]})
	}
	root := cmd.NewDefaultKubectlCommandWithArgs(options)
	addVerbs(root, flags, streams)
	root.Use = "psctl"
	root.Short = "psctl controls a Podman Swarm cluster"
	rename(root)
	root.Long = "psctl controls a Podman Swarm cluster: the swarm's own verbs, and all of kubectl's commands."
	extendVersion(root, streams.Out)
	return root
}

var kubectlWord = regexp.MustCompile(`\bkubectl\b([^/.-]|$)`)

// rename makes help and examples speak of psctl. URLs and plugin prefixes (kubectl-foo) stay.
func rename(c *cobra.Command) {
	for _, text := range []*string{&c.Short, &c.Long, &c.Example} {
		*text = kubectlWord.ReplaceAllString(*text, "psctl$1")
	}
	for _, sub := range c.Commands() {
		rename(sub)
	}
}

// extendVersion puts our own release in front of what kubectl's version command prints.
func extendVersion(root *cobra.Command, out io.Writer) {
	sub, _, err := root.Find([]string{"version"})
	if err != nil || sub.Name() != "version" {
		return
	}
	upstream := sub.Run
	sub.Run = func(c *cobra.Command, args []string) {
		if f := c.Flags().Lookup("output"); f != nil && f.Value.String() == "" {
			printRelease(out)
		}
		upstream(c, args)
	}
}
