package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"time"

	"github.com/spf13/cobra"
	"k8s.io/cli-runtime/pkg/genericiooptions"

	"github.com/podman-swarm/podman-swarm/internal/cli/show"
	"github.com/podman-swarm/podman-swarm/internal/cli/verbs"
	"github.com/podman-swarm/podman-swarm/internal/node"
	"github.com/podman-swarm/podman-swarm/internal/node/datadir"
	"github.com/podman-swarm/podman-swarm/internal/swarm"
)

// swarmHost is what the commands about the swarm need of their surroundings.
type swarmHost struct {
	initNode  initFunc
	joinNode  joinFunc
	resetNode resetFunc
	environ   []string
	exe       string // this program, for the unit
	systemd   systemd
	streams   genericiooptions.IOStreams
	now       func() time.Time
	upTime    time.Duration // how long a started agent may take to answer
}

// initFunc and joinFunc make a data directory a node, and tell how on out. The agent is not running.
type (
	initFunc func(ctx context.Context, cfg node.Config, out io.Writer) error
	joinFunc func(ctx context.Context, cfg node.Config, addr, token string, out io.Writer) error
)

// resetFunc removes a node. It calls stay when it has made sure that no agent runs, before it removes anything.
type resetFunc func(ctx context.Context, cfg node.Config, stay func(context.Context) error) error

// thisHost is the surroundings of this process; node's functions are the caller's to set.
func thisHost() (swarmHost, error) {
	exe, err := os.Executable()
	if err != nil {
		return swarmHost{}, fmt.Errorf("find this program: %w", err)
	}
	return swarmHost{
		environ: os.Environ(), exe: exe, systemd: thisSystemd(), now: time.Now, upTime: 60 * time.Second,
		streams: genericiooptions.IOStreams{In: os.Stdin, Out: os.Stdout, ErrOut: os.Stderr},
	}, nil
}

// addSwarm adds the commands about the swarm, and lets the environment set flags of every command.
func addSwarm(root *cobra.Command, h swarmHost) {
	root.AddCommand(h.initCommand(), h.joinCommand(), h.leave(), h.reset(), h.token(), h.status(),
		h.rotation("rotate-ca", "Replace the swarm's certificate authority, without an interruption", (*swarm.Client).RotateCA),
		h.rotation("rotate-gossip-key", "Replace the key that encrypts gossip, without an interruption", (*swarm.Client).RotateGossipKey))
	root.PersistentPreRunE = func(c *cobra.Command, _ []string) error { return fillFromEnvironment(c, h.environ) }
}

func (h swarmHost) initCommand() *cobra.Command {
	return h.making(&cobra.Command{
		Use:   "init",
		Short: "Begin a swarm on this machine and print the command that lets others join",
		Args:  cobra.NoArgs,
	}, func(ctx context.Context, cfg node.Config, _ []string) error {
		return h.initNode(ctx, cfg, h.streams.Out)
	})
}

func (h swarmHost) joinCommand() *cobra.Command {
	var token string
	c := h.making(&cobra.Command{
		Use:     "join ADDR",
		Short:   "Make this machine a node of an existing swarm",
		Long:    "Make this machine a node of an existing swarm. ADDR is any of its nodes, as host or host:port (default port 7946).",
		Example: "  podman-swarm join 10.0.0.1:7946 --token pswt1...",
		Args: func(_ *cobra.Command, args []string) error {
			switch {
			case len(args) != 1:
				return errors.New("join needs the address of one node of the swarm, for example: podman-swarm join 10.0.0.1:7946 --token T")
			case token == "" && !isSet(h.environ, "token"):
				return errors.New("join needs --token T: run `podman-swarm token create` on a node of the swarm")
			}
			return nil
		},
	}, func(ctx context.Context, cfg node.Config, args []string) error {
		return h.joinNode(ctx, cfg, args[0], token, h.streams.Out)
	})
	c.Flags().StringVar(&token, "token", "", "join token, or PODMAN_SWARM_TOKEN to keep it out of the process list")
	return c
}

func (h swarmHost) reset() *cobra.Command {
	var flags node.Config
	var file string
	var yes bool
	c := &cobra.Command{
		Use:   "reset",
		Short: "Remove this node's pods, networks and data directory",
		Long: "Remove everything this node made on this machine: its containers, pod network, data directory\n" +
			"and systemd unit. The agent must not be running. Images stay.",
		Args: cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			cfg, err := configuration(file, flags)
			if err != nil {
				return err
			}
			if !yes {
				return fmt.Errorf("this removes every pod of this node and all data in %s: say --yes to go on", cfg.DataDir)
			}
			// Nothing starts an agent again in what is empty then: it would begin a swarm of its own.
			stay := func(ctx context.Context) error { return h.systemd.remove(ctx, cfg.DataDir) }
			return h.resetNode(c.Context(), cfg, stay)
		},
	}
	c.Flags().StringVar(&file, "config", "", "configuration file (YAML); flags win over it")
	c.Flags().BoolVar(&yes, "yes", false, "really do it")
	configFlags(c, &flags)
	return c
}

// making completes a command that makes this machine a node and starts its agent.
func (h swarmHost) making(c *cobra.Command, do func(ctx context.Context, cfg node.Config, args []string) error) *cobra.Command {
	var flags node.Config
	var file string
	var noService bool
	c.RunE = func(c *cobra.Command, args []string) error {
		cfg, err := said(file, flags)
		if err != nil {
			return err
		}
		if err := pinFiles(c.Flags(), cfg, file); err != nil {
			return err
		}
		if cfg, err = configuration(file, flags); err != nil {
			return err
		}
		command := h.agentCommand(c, cfg.DataDir)
		if err := do(c.Context(), cfg, args); err != nil {
			return err
		}
		return h.start(c.Context(), cfg.DataDir, command, noService)
	}
	c.Flags().StringVar(&file, "config", "", "configuration file (YAML); flags win over it")
	c.Flags().BoolVar(&noService, "no-service", false, "do not make a systemd unit of it, only print the command that runs the agent")
	configFlags(c, &flags)
	return c
}

// dataDir adds --data-dir and --config, which tell where this machine's node is.
func dataDir(c *cobra.Command) func() (string, error) {
	var dir, file string
	f := c.PersistentFlags()
	f.StringVar(&dir, "data-dir", "", "where the node keeps its data (default "+node.DefaultDataDir()+")")
	f.StringVar(&file, "config", "", "configuration file (YAML) of the node; flags win over it")
	return func() (string, error) {
		var cfg node.Config
		if file != "" {
			var err error
			if cfg, err = node.LoadFile(file); err != nil {
				return "", err
			}
		}
		dir := cfg.Override(node.Config{DataDir: dir}).WithDefaults().DataDir
		if !filepath.IsAbs(dir) {
			return "", fmt.Errorf("--data-dir %q: must be an absolute path", dir)
		}
		return dir, nil
	}
}

func (h swarmHost) printer() *show.Printer {
	return &show.Printer{Out: h.streams.Out, Err: h.streams.ErrOut, Now: h.now}
}

func (h swarmHost) token() *cobra.Command {
	var dir func() (string, error)
	c := verbs.Token(verbs.Host{
		Streams: h.streams, Now: h.now, AtTerminal: show.AtTerminal(h.streams.In),
		Swarm: func() (*swarm.Client, error) {
			l, err := openLocal(dir)
			return l.client, err
		},
	})
	dir = dataDir(c)
	return c
}

func (h swarmHost) status() *cobra.Command {
	p := h.printer()
	c := &cobra.Command{Use: "status", Short: "The swarm as this machine's node sees it", Args: cobra.NoArgs}
	p.AddFlags(c.Flags())
	dir := dataDir(c)
	c.RunE = func(c *cobra.Command, _ []string) error {
		if err := p.Check(); err != nil {
			return err
		}
		l, err := openLocal(dir)
		if err != nil {
			return err
		}
		s, err := l.client.Status(c.Context())
		if err != nil {
			return l.explain(err)
		}
		return p.Status(s)
	}
	return c
}

func (h swarmHost) rotation(use, short string, rotate func(*swarm.Client, context.Context, func(string)) error) *cobra.Command {
	c := &cobra.Command{Use: use, Short: short, Args: cobra.NoArgs}
	dir := dataDir(c)
	c.RunE = func(c *cobra.Command, _ []string) error {
		l, err := openLocal(dir)
		if err != nil {
			return err
		}
		err = rotate(l.client, c.Context(), h.printer().Progress())
		if err != nil && c.Context().Err() != nil {
			return fmt.Errorf("interrupted: unless it was just finished, the rotation is unfinished and both keys are believed: run podman-swarm %s again (podman-swarm status tells)", use)
		}
		if err != nil {
			return l.explain(err)
		}
		_, err = fmt.Fprintln(h.streams.Out, use+": done")
		return err
	}
	return c
}

func (h swarmHost) leave() *cobra.Command {
	person := &show.Person{In: h.streams.In, Out: h.streams.ErrOut, At: show.AtTerminal(h.streams.In)}
	var req swarm.LeaveRequest
	c := &cobra.Command{
		Use: "leave", Short: "Take this machine's node out of the swarm", Args: cobra.NoArgs,
		Long: "Take this machine's node out of the swarm: its pods end here and are replaced elsewhere, its Node object\n" +
			"goes, and its agent ends. Its data stays until `podman-swarm reset`.",
	}
	c.Flags().BoolVar(&req.Force, "force", false, "although it is the last node, or the others cannot be told")
	c.Flags().BoolVar(&person.Yes, "yes", false, "do not ask")
	dir := dataDir(c)
	c.RunE = func(c *cobra.Command, _ []string) error {
		l, err := openLocal(dir)
		if err != nil {
			return err
		}
		s, err := l.client.Status(c.Context())
		if err != nil {
			return l.explain(err)
		}
		if err := person.Agree(leaving(s, req.Force)); err != nil {
			return err
		}
		if err := l.client.Leave(c.Context(), req, h.printer().Progress()); err != nil {
			return l.explain(err)
		}
		if err := h.systemd.remove(c.Context(), l.dir); err != nil {
			return err
		}
		ended, cancel := context.WithTimeout(c.Context(), h.upTime)
		defer cancel()
		if err := datadir.AwaitFree(ended, l.dir); err != nil {
			return err
		}
		_, err = fmt.Fprintf(h.streams.Out, "%s has left the swarm. To remove what is left of it here: podman-swarm reset --yes%s\n", s.Node, dirFlag(l.dir))
		return err
	}
	return c
}

func leaving(s swarm.Status, force bool) string {
	text := s.Node + " will leave the swarm: its pods are replaced elsewhere, its Node object is deleted, and its agent ends."
	if len(s.Members) == 1 && force {
		text = s.Node + " is the last node: the swarm ends with it, and nobody has its state any more."
	}
	return text
}
