package verbs

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"k8s.io/apimachinery/pkg/util/duration"

	"github.com/podman-swarm/podman-swarm/internal/cli/show"
	"github.com/podman-swarm/podman-swarm/internal/swarm"
)

func backup(h Host) *cobra.Command {
	listed := func(c *swarm.Client, ctx context.Context) ([]swarm.Backup, error) {
		l, err := c.Backups(ctx)
		return l.Items, err
	}
	ids := named(listed, func(b swarm.Backup) string { return b.ID })
	return parent("backup", "Make, list, fetch and restore backups",
		"Backups hold the whole state and the swarm's keys: whoever has the file can read every Secret. Each is read back when it is\n"+
			"written. Every node makes its own by the policy, in DATA-DIR/backups.",
		h.createBackup(),
		h.listing("list", "List the backups of all nodes", func(ctx context.Context, c *swarm.Client, p *show.Printer, _ []string) error {
			l, err := c.Backups(ctx)
			if err != nil {
				return err
			}
			return errors.Join(p.Backups(l.Items), h.warn(absent(l.Silent)))
		}),
		h.completing(h.download(), ids), h.completing(h.restore(), ids), h.completing(h.deleteBackup(), ids), h.backupPolicy(),
	)
}

func (h Host) createBackup() *cobra.Command {
	p := h.printer()
	var req swarm.BackupRequest
	cmd := &cobra.Command{
		Use: "create", Short: "Make a backup now, and read it back", Args: cobra.NoArgs,
		RunE: h.run(p, func(ctx context.Context, c *swarm.Client, _ []string) error {
			b, err := c.CreateBackup(ctx, req, p.Progress())
			if err != nil {
				return err
			}
			return p.Backups([]swarm.Backup{b})
		}),
	}
	p.AddFlags(cmd.Flags())
	cmd.Flags().StringVar(&req.Reason, "reason", "", "Why, shown in the list.")
	return cmd
}

func (h Host) download() *cobra.Command {
	var file string
	cmd := &cobra.Command{
		Use: "download ID", Short: "Fetch a backup's file, to keep it elsewhere", Args: exactly("the ID of a backup (see list)"),
		RunE: h.run(h.printer(), func(ctx context.Context, c *swarm.Client, args []string) error {
			if file == "-" {
				_, err := c.DownloadBackup(ctx, args[0], h.Streams.Out)
				return err
			}
			if file == "" {
				file = path.Base(args[0]) // an ID is NODE/FILE
			}
			n, err := fetch(ctx, c, args[0], file)
			if err != nil {
				return err
			}
			return h.say("backup %s saved as %s (%d bytes)", args[0], file, n)
		}),
	}
	cmd.Flags().StringVarP(&file, "file", "f", "", "Where to save it, - for standard output (default: its own name, here).")
	return cmd
}

// fetch saves a backup in a new file that only its owner reads, or leaves none.
func fetch(ctx context.Context, c *swarm.Client, id, to string) (int64, error) {
	f, err := os.OpenFile(to, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o600) //nolint:gosec // where the person said
	if errors.Is(err, os.ErrExist) {
		return 0, fmt.Errorf("%s exists already: remove it, or name another file with -f", to)
	}
	if err != nil {
		return 0, fmt.Errorf("save backup: %w", err)
	}
	n, err := c.DownloadBackup(ctx, id, f)
	if err == nil {
		err = f.Sync()
	}
	if err = errors.Join(err, f.Close()); err != nil {
		return 0, errors.Join(err, os.Remove(to))
	}
	return n, nil
}

func (h Host) restore() *cobra.Command {
	p, person := h.printer(), h.person()
	var file string
	cmd := &cobra.Command{
		Use: "restore {ID | -f FILE}", Short: "Replace the state of the whole swarm with a backup's", Args: cobra.MaximumNArgs(1),
		RunE: h.run(p, func(ctx context.Context, c *swarm.Client, args []string) error {
			switch {
			case (file == "") == (len(args) == 0):
				return errors.New("say either the ID of a backup (see psctl swarm backup list) or -f FILE")
			case file != "":
				f, err := os.Open(file) //nolint:gosec // what the person named
				if err != nil {
					return fmt.Errorf("read backup: %w", err)
				}
				defer f.Close()
				return h.restoring(person, "the backup in "+file, func() error { return c.RestoreFile(ctx, io.Reader(f), p.Progress()) })
			}
			b, err := find(ctx, c, args[0])
			if err != nil {
				return err
			}
			return h.restoring(person, h.words(b), func() error { return c.RestoreBackup(ctx, b.ID, p.Progress()) })
		}),
	}
	cmd.Flags().StringVarP(&file, "file", "f", "", "A backup's file on this machine.")
	cmd.Flags().BoolVar(&person.Yes, "yes", false, "Do not ask.")
	return cmd
}

func (h Host) restoring(person *show.Person, what string, restore func() error) error {
	if err := person.Agree("The state of the whole swarm will be replaced with " + what + ":\n" +
		"every change made since is lost, and pods that it does not know are removed."); err != nil {
		return err
	}
	if err := restore(); err != nil {
		return err
	}
	return h.say("restored %s", what)
}

func (h Host) words(b swarm.Backup) string {
	return fmt.Sprintf("backup %s of node %s, made %s ago at revision %d with %d objects", b.ID, b.Node, duration.HumanDuration(h.Now().Sub(b.Created)), b.Revision, b.Objects)
}

func find(ctx context.Context, c *swarm.Client, id string) (swarm.Backup, error) {
	all, err := c.Backups(ctx)
	if err != nil {
		return swarm.Backup{}, err
	}
	for _, b := range all.Items {
		if b.ID == id {
			return b, nil
		}
	}
	return swarm.Backup{}, fmt.Errorf("no node that answers has a backup %q: see psctl swarm backup list", id)
}

// absent says whose backups are not in a list, or nothing.
func absent(nodes []string) string {
	if len(nodes) == 0 {
		return ""
	}
	return "not listed are the backups of " + strings.Join(nodes, ", ") + ": no answer from there"
}

func (h Host) deleteBackup() *cobra.Command {
	person := h.person()
	cmd := &cobra.Command{
		Use: "delete ID", Short: "Remove a backup's file", Args: exactly("the ID of a backup (see list)"),
		RunE: h.run(h.printer(), func(ctx context.Context, c *swarm.Client, args []string) error {
			b, err := find(ctx, c, args[0])
			if err != nil {
				return err
			}
			if err := person.Agree("The file of " + h.words(b) + " will be removed."); err != nil {
				return err
			}
			if err := c.DeleteBackup(ctx, b.ID); err != nil {
				return err
			}
			return h.say("backup %s deleted", b.ID)
		}),
	}
	cmd.Flags().BoolVar(&person.Yes, "yes", false, "Do not ask.")
	return cmd
}

func (h Host) backupPolicy() *cobra.Command {
	p := h.printer()
	var every time.Duration
	var keep int
	cmd := &cobra.Command{Use: "policy", Short: "When backups are made, and how many are kept: look, or change", Args: cobra.NoArgs}
	p.AddFlags(cmd.Flags())
	cmd.Flags().DurationVar(&every, "every", 0, "Change the period of backups, for example 1h; 0: none by themselves.")
	cmd.Flags().IntVar(&keep, "keep", 0, "Change how many backups each node keeps.")
	cmd.RunE = h.run(p, func(ctx context.Context, c *swarm.Client, _ []string) error {
		policy, err := c.BackupPolicy(ctx)
		if err != nil {
			return err
		}
		e, k := cmd.Flags().Changed("every"), cmd.Flags().Changed("keep")
		if e {
			policy.Every = swarm.Duration(every)
		}
		if k {
			policy.Keep = keep
		}
		if e || k {
			if err := c.SetBackupPolicy(ctx, policy); err != nil {
				return err
			}
		}
		return p.BackupPolicy(policy)
	})
	return cmd
}
