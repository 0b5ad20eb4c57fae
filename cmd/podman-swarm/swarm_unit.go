package main

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/podman-swarm/podman-swarm/internal/node"
)

// systemd is the service manager of this machine (root) or of this user.
type systemd struct {
	present bool
	user    bool   // the user's manager
	dir     string // of unit files
	linger  bool   // the user's units run without a login
	run     func(ctx context.Context, args ...string) error
}

// thisSystemd looks for the manager that is in charge of this process's user.
func thisSystemd() systemd {
	s := systemd{user: os.Geteuid() != 0, dir: "/etc/systemd/system", linger: true, run: systemctl}
	_, err := os.Stat("/run/systemd/system")
	if s.present = err == nil; !s.user {
		return s
	}
	config, err := os.UserConfigDir()
	s.dir = filepath.Join(config, "systemd", "user")
	_, running := os.Stat(filepath.Join(os.Getenv("XDG_RUNTIME_DIR"), "systemd"))
	s.present = s.present && err == nil && running == nil
	if me, err := user.Current(); err == nil {
		_, err := os.Stat(filepath.Join("/var/lib/systemd/linger", me.Username))
		s.linger = err == nil
	}
	return s
}

func systemctl(ctx context.Context, args ...string) error {
	out, err := exec.CommandContext(ctx, "systemctl", args...).CombinedOutput()
	if err != nil {
		return fmt.Errorf("systemctl %s: %w: %s", strings.Join(args, " "), err, strings.Join(strings.Fields(string(out)), " "))
	}
	return nil
}

// ctl runs systemctl for the right manager.
func (s systemd) ctl(ctx context.Context, args ...string) error {
	if s.user {
		args = append([]string{"--user"}, args...)
	}
	return s.run(ctx, args...)
}

// unitName is one per data directory: several nodes may share a machine.
func unitName(dataDir string) string {
	if dataDir == node.DefaultDataDir() {
		return "podman-swarm.service"
	}
	sum := sha256.Sum256([]byte(dataDir))
	return "podman-swarm-" + hex.EncodeToString(sum[:4]) + ".service"
}

// unit is the unit file for an agent. Containers are children of the unit and must outlive the
// agent, so only the agent's own process is stopped with it, and none is when one of them has run out of memory.
func (s systemd) unit(command []string) string {
	var words []string
	for _, w := range command {
		words = append(words, unitWord(w))
	}
	after, target := "Wants=network-online.target\nAfter=network-online.target\n", "multi-user.target"
	if s.user {
		after, target = "", "default.target"
	}
	return `# Written by podman-swarm.
[Unit]
Description=Podman Swarm node
Documentation=https://github.com/podman-swarm/podman-swarm
` + after + `StartLimitIntervalSec=0

[Service]
ExecStart=` + strings.Join(words, " ") + `
Restart=on-failure
RestartPreventExitStatus=` + strconv.Itoa(finalStatus) + `
RestartSec=1
KillMode=process
OOMPolicy=continue
Delegate=yes
TasksMax=infinity

[Install]
WantedBy=` + target + `
`
}

// install writes the unit, and starts it now and at every boot.
func (s systemd) install(ctx context.Context, dataDir string, command []string) error {
	if err := os.MkdirAll(s.dir, 0o755); err != nil { //nolint:gosec // as the distribution makes it
		return fmt.Errorf("make unit: %w", err)
	}
	name := unitName(dataDir)
	if err := os.WriteFile(filepath.Join(s.dir, name), []byte(s.unit(command)), 0o644); err != nil { //nolint:gosec // no secret in it
		return fmt.Errorf("make unit: %w", err)
	}
	for _, args := range [][]string{{"daemon-reload"}, {"enable", name}, {"restart", name}} {
		if err := s.ctl(ctx, args...); err != nil {
			return err
		}
	}
	return nil
}

// remove stops and removes the unit of a data directory, if there is one.
func (s systemd) remove(ctx context.Context, dataDir string) error {
	name := unitName(dataDir)
	file := filepath.Join(s.dir, name)
	if _, err := os.Stat(file); !s.present || err != nil {
		return nil //nolint:nilerr // no unit of ours
	}
	return errors.Join(s.ctl(ctx, "disable", "--now", name), os.Remove(file), s.ctl(ctx, "daemon-reload"))
}

// agentCommand is what runs the agent with the settings that init or join were given.
func (h swarmHost) agentCommand(c *cobra.Command, dataDir string) []string {
	command := []string{h.exe, "agent", "--data-dir", dataDir}
	c.Flags().Visit(func(f *pflag.Flag) {
		switch f.Name {
		case "data-dir", "token", "no-service", "join", "join-token": // done already, and secrets stay out of the unit
			return
		}
		command = append(command, "--"+f.Name+"="+f.Value.String())
	})
	return command
}

// pinFiles makes the flags that name files absolute, and sets those of which the configuration file
// says a relative one: the unit's agent runs in another directory.
func pinFiles(flags *pflag.FlagSet, cfg node.Config, file string) error {
	for name, path := range map[string]string{
		"config": file, "data-dir": cfg.DataDir, "encryption-key": cfg.EncryptionKey, "podman-socket": cfg.PodmanSocket,
		"tls-cert": cfg.TLSCert, "tls-key": cfg.TLSKey, "tls-ca": cfg.TLSCA,
		"audit-policy-file": cfg.AuditPolicyFile, "audit-log-path": cfg.AuditLogPath,
	} {
		stdout, url := name == "audit-log-path" && path == "-", strings.Contains(path, "://")
		if path == "" || stdout || url || filepath.IsAbs(path) {
			continue
		}
		path, err := filepath.Abs(path)
		if err != nil {
			return fmt.Errorf("--%s: %w: say an absolute path", name, err)
		}
		if err := flags.Set(name, path); err != nil {
			return fmt.Errorf("--%s: %w", name, err)
		}
	}
	return nil
}

// start starts the agent, or says how.
func (h swarmHost) start(ctx context.Context, dataDir string, command []string, noService bool) error {
	if noService || !h.systemd.present {
		var words []string
		for _, w := range command {
			words = append(words, shellWord(w))
		}
		_, err := fmt.Fprintf(h.streams.ErrOut, "Run the node with:\n\n  %s\n\n", strings.Join(words, " "))
		return err
	}
	if err := h.systemd.install(ctx, dataDir, command); err != nil {
		return err
	}
	name := unitName(dataDir)
	fmt.Fprintf(h.streams.ErrOut, "Started %s, now and at every boot\n", name)
	if !h.systemd.linger {
		fmt.Fprintln(h.streams.ErrOut, "It ends when you log out: to keep it running, run: loginctl enable-linger")
	}
	return h.waitUntilUp(ctx, dataDir, name)
}

// waitUntilUp waits for the agent's first answer.
func (h swarmHost) waitUntilUp(ctx context.Context, dataDir, unit string) error {
	ctx, cancel := context.WithTimeout(ctx, h.upTime)
	defer cancel()
	again := time.NewTicker(100 * time.Millisecond)
	defer again.Stop()
	for {
		l, err := openLocal(func() (string, error) { return dataDir, nil })
		if err == nil {
			s, asked := l.client.Status(ctx)
			if asked == nil {
				_, err := fmt.Fprintf(h.streams.ErrOut, "Node %s is up: %s\n", s.Node, s.Health)
				return err
			}
			err = asked
		}
		select {
		case <-again.C:
		case <-ctx.Done():
			journal := "journalctl"
			if h.systemd.user {
				journal += " --user"
			}
			return fmt.Errorf("the agent does not answer (%w): see what it says with: %s -u %s", err, journal, unit)
		}
	}
}

const plain = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-_=/.,:@+"

func isPlain(s string) bool { return s != "" && strings.Trim(s, plain) == "" }

// shellWord quotes a word for a POSIX shell.
func shellWord(s string) string {
	if isPlain(s) {
		return s
	}
	return "'" + strings.ReplaceAll(s, "'", `'\''`) + "'"
}

// unitWord quotes a word for ExecStart=.
func unitWord(s string) string {
	if isPlain(s) {
		return s
	}
	return `"` + strings.NewReplacer(`\`, `\\`, `"`, `\"`, "%", "%%", "$", "$$", "\n", `\n`).Replace(s) + `"`
}
