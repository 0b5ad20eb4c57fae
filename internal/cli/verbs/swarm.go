package verbs

import (
	"context"
	"fmt"
	"time"

	"github.com/spf13/cobra"

	"github.com/podman-swarm/podman-swarm/internal/cli/show"
	"github.com/podman-swarm/podman-swarm/internal/swarm"
)

// Swarm returns psctl swarm.
func Swarm(h Host) *cobra.Command {
	return parent("swarm", "Look at the swarm, admit nodes, back up, rehearse failures",
		"Look after the swarm itself: its health and members, tokens that admit nodes, what merges overwrote, backups and drills.",
		h.listing("status", "Health, leader, lineage and members at a glance", func(ctx context.Context, c *swarm.Client, p *show.Printer, _ []string) error {
			s, err := c.Status(ctx)
			if err != nil {
				return err
			}
			return p.Status(s)
		}),
		h.listing("members", "List the members", func(ctx context.Context, c *swarm.Client, p *show.Printer, _ []string) error {
			m, err := c.Members(ctx)
			if err != nil {
				return err
			}
			return p.Members(m)
		}),
		Token(h), conflicts(h), backup(h), drill(h),
	)
}

// Token returns the commands about join tokens, which podman-swarm has too.
func Token(h Host) *cobra.Command {
	return parent("token", "Tokens that admit new nodes", "Make, list and revoke the tokens that admit new nodes.",
		h.createToken(),
		h.listing("list", "List join tokens, without their secrets", func(ctx context.Context, c *swarm.Client, p *show.Printer, _ []string) error {
			t, err := c.Tokens(ctx)
			if err != nil {
				return err
			}
			return p.Tokens(t)
		}),
		h.revokeToken(),
	)
}

func (h Host) createToken() *cobra.Command {
	p := h.printer()
	var ttl time.Duration
	var req swarm.TokenRequest
	cmd := &cobra.Command{
		Use: "create", Short: "Make a join token and print the command that uses it", Args: cobra.NoArgs,
		Long: "Make a join token and print the join command, ready to paste on the new node. The token is shown this once.",
		RunE: h.run(p, func(ctx context.Context, c *swarm.Client, _ []string) error {
			req.TTL = swarm.Duration(ttl)
			t, err := c.CreateToken(ctx, req)
			if err != nil {
				return err
			}
			return p.NewToken(t)
		}),
	}
	p.AddFlags(cmd.Flags())
	cmd.Flags().DurationVar(&ttl, "ttl", 24*time.Hour, "How long the token may be used, for example 30m; 0: for ever.")
	cmd.Flags().IntVar(&req.Uses, "uses", 0, "How many nodes it admits; 0: without limit.")
	cmd.Flags().StringVar(&req.Description, "description", "", "What it is for, shown in the list.")
	return cmd
}

func (h Host) revokeToken() *cobra.Command {
	return h.completing(&cobra.Command{
		Use: "revoke ID", Short: "Make a join token worthless", Args: exactly("the ID of a token (see list)"),
		RunE: h.run(h.printer(), func(ctx context.Context, c *swarm.Client, args []string) error {
			if err := c.RevokeToken(ctx, args[0]); err != nil {
				return err
			}
			return h.say("token %s revoked", args[0])
		}),
	}, named((*swarm.Client).Tokens, func(t swarm.Token) string { return t.ID }))
}

// exactly asks for one argument and says what it is.
func exactly(what string) cobra.PositionalArgs {
	return func(c *cobra.Command, args []string) error {
		if len(args) != 1 {
			return fmt.Errorf("%s needs %s, and nothing else", c.CommandPath(), what)
		}
		return nil
	}
}

func conflicts(h Host) *cobra.Command {
	var everything bool
	list := func(ctx context.Context, c *swarm.Client, p *show.Printer, _ []string) error {
		all, err := c.Conflicts(ctx)
		if err != nil {
			return err
		}
		return p.Conflicts(all, everything)
	}
	ids := named((*swarm.Client).Conflicts, func(c swarm.Conflict) string { return c.ID })
	cmd := h.listing("conflicts", "What merges overwrote: list, compare, undo", list)
	cmd.Long = "When parts of a swarm that were cut off from each other meet again, the newer change of each object wins.\n" +
		"What was overwritten is kept here for 7 days. Status, and what controllers made, is listed with --all only."
	cmd.Args = unknown
	look := h.listing("show ID", "Both versions of a conflict, and what differs", func(ctx context.Context, c *swarm.Client, p *show.Printer, args []string) error {
		one, err := c.Conflict(ctx, args[0])
		if err != nil {
			return err
		}
		return p.Conflict(one)
	})
	look.Args = exactly("the ID of a conflict (see list)")
	also := h.listing("list", "List what merges overwrote", list)
	for _, c := range []*cobra.Command{cmd, also} {
		c.Flags().BoolVar(&everything, "all", false, "Status, and what controllers made, too.")
	}
	cmd.AddCommand(also, h.completing(look, ids), h.completing(h.undo(), ids))
	return cmd
}

func (h Host) undo() *cobra.Command {
	person := h.person()
	var req swarm.UndoRequest
	cmd := &cobra.Command{
		Use: "undo ID", Short: "Put the overwritten version back", Args: exactly("the ID of a conflict (see list)"),
		RunE: h.run(h.printer(), func(ctx context.Context, c *swarm.Client, args []string) error {
			one, err := c.Conflict(ctx, args[0])
			if err != nil {
				return err
			}
			if err := person.Agree(undoing(one)); err != nil {
				return err
			}
			if err := c.UndoConflict(ctx, args[0], req); err != nil {
				return err
			}
			return h.say("conflict %s undone", args[0])
		}),
	}
	cmd.Flags().BoolVar(&person.Yes, "yes", false, "Do not ask.")
	cmd.Flags().BoolVar(&req.Force, "force", false, "Although the object was changed again since the merge.")
	return cmd
}

func undoing(c swarm.Conflict) string {
	what := c.Key
	if c.Resource != "" {
		what = c.Resource + "/" + c.Name
	}
	if c.Namespace != "" {
		what += " in " + c.Namespace
	}
	if c.Overwritten.Deleted {
		return fmt.Sprintf("%s will be deleted, as it was on one side at %s.", what, c.Overwritten.Written.UTC().Format(time.RFC3339))
	}
	return fmt.Sprintf("%s will be what it was on one side at %s; what it is now is lost.", what, c.Overwritten.Written.UTC().Format(time.RFC3339))
}

func drill(h Host) *cobra.Command {
	p, person := h.printer(), h.person()
	var dry bool
	cmd := &cobra.Command{
		Use: "drill [NODE]", Short: "Kill a node's agent and pods, measure, put everything back", Args: cobra.MaximumNArgs(1),
		Long: "Rehearse the loss of a node: kill its agent and pods, measure detection, replacement and return beside their\n" +
			"budgets, and put everything back. Without NODE the swarm chooses one.",
		RunE: h.run(p, func(ctx context.Context, c *swarm.Client, args []string) error {
			req := swarm.DrillRequest{DryRun: true}
			if len(args) == 1 {
				req.Node = args[0]
			}
			plan, err := c.Drill(ctx, req, p.Progress())
			if err != nil || dry {
				if err == nil {
					err = p.Drill(plan)
				}
				return err
			}
			if err := person.Agree(drilling(plan)); err != nil {
				return err
			}
			result, err := c.Drill(ctx, swarm.DrillRequest{Node: plan.Node}, p.Progress())
			if err != nil {
				return err
			}
			return p.Drill(result)
		}),
	}
	p.AddFlags(cmd.Flags())
	cmd.Flags().BoolVar(&dry, "dry-run", false, "Only say what would happen.")
	cmd.Flags().BoolVar(&person.Yes, "yes", false, "Do not ask.")
	return h.completing(cmd, memberNames)
}

func drilling(plan swarm.DrillResult) string {
	s := fmt.Sprintf("The agent and the pods of %s will be killed; %d pods will be replaced elsewhere:\n", plan.Node, plan.Pods)
	for _, step := range plan.Plan {
		s += "  " + step + "\n"
	}
	return s + "Everything is put back afterwards."
}
