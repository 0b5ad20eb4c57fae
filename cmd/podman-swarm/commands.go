package main

import (
	"fmt"

	"github.com/spf13/cobra"

	"github.com/podman-swarm/podman-swarm/internal/apiserver"
	"github.com/podman-swarm/podman-swarm/internal/netd/helper"
	"github.com/podman-swarm/podman-swarm/internal/node"
	"github.com/podman-swarm/podman-swarm/internal/node/playdead"
	"github.com/podman-swarm/podman-swarm/internal/version"
)

func root() *cobra.Command {
	c := &cobra.Command{
		Use:           "podman-swarm",
		Short:         "A node of a Podman Swarm cluster: the Kubernetes API on top of Podman",
		SilenceUsage:  true,
		SilenceErrors: true,
		CompletionOptions: cobra.CompletionOptions{
			HiddenDefaultCmd: true,
		},
	}
	c.AddCommand(agent(), restore(), versionCommand(), openapi(), netd(), playDead())
	return c
}

func agent() *cobra.Command {
	var flags node.Config
	var file string
	c := &cobra.Command{
		Use:   "agent",
		Short: "Run a node in the foreground",
		Long: "Run a node in the foreground. An empty data directory becomes a swarm of one node;\n" +
			"its admin kubeconfig is DATA-DIR/admin.kubeconfig. With --join and --join-token it joins a swarm\n" +
			"instead. Every flag can also be set in the environment, as PODMAN_SWARM_DATA_DIR for --data-dir.",
		Example: "  podman-swarm agent\n  podman-swarm agent --data-dir /srv/swarm --api-addr 127.0.0.1:6443\n" +
			"  PODMAN_SWARM_JOIN_TOKEN=pswt1... podman-swarm agent --join 10.0.0.1",
		Args: cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			cfg, err := configuration(file, flags)
			if err != nil {
				return err
			}
			return node.Run(c.Context(), cfg)
		},
	}
	c.Flags().StringVar(&file, "config", "", "configuration file (YAML); flags win over it")
	configFlags(c, &flags)
	return c
}

func restore() *cobra.Command {
	var flags node.Config
	var file string
	c := &cobra.Command{
		Use:   "restore BACKUP",
		Short: "Begin a swarm again from a backup, in an empty data directory",
		Long: "Fill an empty data directory from a backup file: its state and its keys. The swarm begins again\n" +
			"with this node: start the agent, remove the nodes of before (psctl node rm), and let their machines\n" +
			"join anew. To bring the state of a swarm that runs back to a backup, use: psctl swarm backup restore",
		Example: "  podman-swarm restore /mnt/backup/swarm-20261126T120000.000Z.tar.gz",
		Args:    cobra.ExactArgs(1),
		RunE: func(c *cobra.Command, args []string) error {
			cfg, err := configuration(file, flags)
			if err != nil {
				return err
			}
			return node.Restore(c.Context(), cfg, args[0], c.OutOrStdout())
		},
	}
	c.Flags().StringVar(&file, "config", "", "configuration file (YAML); flags win over it")
	configFlags(c, &flags)
	return c
}

func configFlags(c *cobra.Command, cfg *node.Config) {
	f := c.Flags()
	f.StringVar(&cfg.DataDir, "data-dir", "", "where the node keeps its data (default "+node.DefaultDataDir()+")")
	f.StringVar(&cfg.NodeName, "node-name", "", "name of this node (default: the host name)")
	f.StringVar(&cfg.APIAddr, "api-addr", "", "address and port of the Kubernetes API (default 0.0.0.0:6443)")
	f.StringVar(&cfg.AdvertiseAddr, "advertise-addr", "", "address others reach this node by (default: that of the default route)")
	f.StringVar(&cfg.BindAddr, "bind-addr", "", "address and port for other nodes, TCP and UDP (default 0.0.0.0:7946)")
	f.StringVar(&cfg.Join, "join", "", "a node of the swarm that an empty data directory joins, host or host:port")
	f.StringVar(&cfg.JoinToken, "join-token", "", "what podman-swarm token create printed; needed with --join")
	f.StringVar(&cfg.EncryptionKey, "encryption-key", "", "file with the first gossip key of a new swarm, 32 bytes in base64 (default: a random one)")
	f.StringVar(&cfg.TLSCert, "tls-cert", "", "certificate (PEM) the API shows for its names beside the swarm's own")
	f.StringVar(&cfg.TLSKey, "tls-key", "", "its key (PEM)")
	f.StringVar(&cfg.TLSCA, "tls-ca", "", "the authority that signed it (PEM), put into kubeconfigs")
	f.StringVar(&cfg.OnQuorumLoss, "on-quorum-loss", "", "what survivors of a lost majority do: continue or freeze (default continue)")
	f.StringVar(&cfg.Runtime, "runtime", "", "podman, or hollow: pods only pretend to run (default podman)")
	f.StringVar(&cfg.PodmanSocket, "podman-socket", "", "libpod socket (default: the user's own, else started on demand)")
	f.StringVar(&cfg.PodCIDR, "pod-cidr", "", "this node's range of pod addresses (default: the lowest free /24 of 10.244.0.0/16)")
	f.StringVar(&cfg.ServiceCIDR, "service-cidr", "", "range of Service addresses (default 10.43.0.0/16)")
	f.StringVar(&cfg.AuditPolicyFile, "audit-policy-file", "", "Kubernetes audit policy")
	f.StringVar(&cfg.AuditLogPath, "audit-log-path", "", "file for audit events, - for standard output")
	f.StringVar(&cfg.LogLevel, "log-level", "", "debug, info, warn or error (default info)")
	f.StringVar(&cfg.PprofAddr, "pprof-addr", "", "serve Go profiles here, for example 127.0.0.1:6060 (default off)")
}

// configuration merges file and flags, fills in defaults and validates the whole.
func configuration(file string, flags node.Config) (node.Config, error) {
	cfg, err := said(file, flags)
	if err != nil {
		return cfg, err
	}
	cfg = cfg.WithDefaults()
	return cfg, cfg.Validate()
}

// said merges file and flags.
func said(file string, flags node.Config) (cfg node.Config, err error) {
	if file != "" {
		cfg, err = node.LoadFile(file)
	}
	return cfg.Override(flags), err
}

func versionCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "version",
		Short: "Print the release and the Kubernetes version it speaks",
		Args:  cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			_, err := fmt.Fprintf(c.OutOrStdout(), "podman-swarm %s (Kubernetes %s)\n", version.Swarm(), version.Kubernetes)
			return err
		},
	}
}

// openapi is what the API server runs as a child process: building the documents takes 50 MB that
// the serving process should not keep.
func openapi() *cobra.Command {
	var out string
	c := &cobra.Command{
		Use:    "openapi",
		Short:  "Build the OpenAPI documents of the built-in API",
		Hidden: true,
		Args:   cobra.NoArgs,
		RunE:   func(c *cobra.Command, _ []string) error { return apiserver.BuildOpenAPI(c.Context(), out) },
	}
	c.Flags().StringVar(&out, "out", "", "directory to write to")
	return c
}

// netd is the network helper, for builds that do not carry the small binary of the same code.
func netd() *cobra.Command {
	return &cobra.Command{
		Use:                "netd",
		Short:              "The network helper (started by the agent)",
		Hidden:             true,
		DisableFlagParsing: true,
		RunE:               func(c *cobra.Command, args []string) error { return helper.Main(c.Context(), args) },
	}
}

// playDead is what an agent becomes during a drill, under its own PID.
func playDead() *cobra.Command {
	return &cobra.Command{
		Use:                playdead.Command,
		Short:              "A node that plays dead (started by psctl swarm drill)",
		Hidden:             true,
		DisableFlagParsing: true,
		RunE:               func(c *cobra.Command, args []string) error { return playdead.Main(c.Context(), args) },
	}
}
