package verbs

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"k8s.io/cli-runtime/pkg/genericiooptions"
	"k8s.io/client-go/kubernetes"

	"github.com/podman-swarm/podman-swarm/internal/cli/show"
	"github.com/podman-swarm/podman-swarm/internal/swarm"
)

// Host is what the commands need of their surroundings.
type Host struct {
	Streams    genericiooptions.IOStreams
	Now        func() time.Time
	AtTerminal func() bool                          // a person can be asked
	Swarm      func() (*swarm.Client, error)        // of the configured server
	Kube       func() (kubernetes.Interface, error) // of the same
}

// completionTime is how long a shell waits for names.
const completionTime = 3 * time.Second

func (h Host) printer() *show.Printer {
	return &show.Printer{Out: h.Streams.Out, Err: h.Streams.ErrOut, Now: h.Now}
}

func (h Host) person() *show.Person {
	return &show.Person{In: h.Streams.In, Out: h.Streams.ErrOut, At: h.AtTerminal}
}

func (h Host) say(format string, args ...any) error {
	_, err := fmt.Fprintf(h.Streams.Out, format+"\n", args...)
	return err
}

// warn says beside the result what is wrong with it; nothing if that is empty.
func (h Host) warn(what string) error {
	if what == "" {
		return nil
	}
	_, err := fmt.Fprintf(h.Streams.ErrOut, "Warning: %s\n", what)
	return err
}

// call is what a command does once it has a client.
type call func(ctx context.Context, c *swarm.Client, args []string) error

// run checks the format, makes the client and calls.
func (h Host) run(p *show.Printer, f call) func(*cobra.Command, []string) error {
	return func(cmd *cobra.Command, args []string) error {
		if err := p.Check(); err != nil {
			return err
		}
		c, err := h.Swarm()
		if err != nil {
			return err
		}
		return f(cmd.Context(), c, args)
	}
}

// listing is a command that only asks and prints.
func (h Host) listing(use, short string, f func(ctx context.Context, c *swarm.Client, p *show.Printer, args []string) error) *cobra.Command {
	p := h.printer()
	cmd := &cobra.Command{Use: use, Short: short, Args: cobra.NoArgs}
	p.AddFlags(cmd.Flags())
	cmd.RunE = h.run(p, func(ctx context.Context, c *swarm.Client, args []string) error { return f(ctx, c, p, args) })
	return cmd
}

// parent is a command that only has others.
func parent(use, short, long string, subs ...*cobra.Command) *cobra.Command {
	cmd := &cobra.Command{Use: use + " SUBCOMMAND", Short: short, Long: long, Args: unknown, RunE: func(c *cobra.Command, _ []string) error { return c.Help() }}
	cmd.AddCommand(subs...)
	cmd.DisableFlagsInUseLine = true
	for _, sub := range subs {
		sub.DisableFlagsInUseLine = true
	}
	return cmd
}

// unknown refuses a word that is no command, and names those that are.
func unknown(c *cobra.Command, args []string) error {
	if len(args) == 0 {
		return nil
	}
	var names []string
	for _, sub := range c.Commands() {
		if sub.IsAvailableCommand() {
			names = append(names, sub.Name())
		}
	}
	return fmt.Errorf("%s has no command %q: there are %s", c.CommandPath(), args[0], strings.Join(names, ", "))
}

// completing offers names for a command's first argument.
func (h Host) completing(cmd *cobra.Command, names func(ctx context.Context, c *swarm.Client) ([]string, error)) *cobra.Command {
	cmd.ValidArgsFunction = func(cmd *cobra.Command, args []string, typed string) ([]string, cobra.ShellCompDirective) {
		c, err := h.Swarm()
		if err != nil || len(args) > 0 {
			return nil, cobra.ShellCompDirectiveNoFileComp
		}
		ctx, cancel := context.WithTimeout(cmd.Context(), completionTime)
		defer cancel()
		all, err := names(ctx, c)
		if err != nil {
			return nil, cobra.ShellCompDirectiveNoFileComp
		}
		return slices.DeleteFunc(all, func(n string) bool { return !strings.HasPrefix(n, typed) }), cobra.ShellCompDirectiveNoFileComp
	}
	return cmd
}

// named makes a function for completing out of a list and what names its items.
func named[T any](list func(*swarm.Client, context.Context) ([]T, error), name func(T) string) func(context.Context, *swarm.Client) ([]string, error) {
	return func(ctx context.Context, c *swarm.Client) ([]string, error) {
		items, err := list(c, ctx)
		var names []string
		for _, i := range items {
			names = append(names, name(i))
		}
		return names, err
	}
}

func memberNames(ctx context.Context, c *swarm.Client) ([]string, error) {
	return named((*swarm.Client).Members, func(m swarm.Member) string { return m.Name })(ctx, c)
}

// member finds a member, or says who there is.
func member(ctx context.Context, c *swarm.Client, name string) (swarm.Member, error) {
	members, err := c.Members(ctx)
	if err != nil {
		return swarm.Member{}, err
	}
	var names []string
	for _, m := range members {
		if m.Name == name {
			return m, nil
		}
		names = append(names, m.Name)
	}
	return swarm.Member{}, fmt.Errorf("no member is called %q: there are %s", name, strings.Join(names, ", "))
}
