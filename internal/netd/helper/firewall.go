package helper

import (
	"bytes"
	"context"
	"fmt"
	"os/exec"
	"strings"

	"github.com/podman-swarm/podman-swarm/internal/netd/wire"
)

// Other tables' rules of the host may drop forwarded packets, and no table can overrule another.
// Docker and ufw set the policy of iptables' FORWARD chain to drop: there, two rules of ours come
// first. firewalld ends its own table with a reject: that one must be told by its administrator.

func forwardRules() [][]string {
	return [][]string{
		{"-i", linkPrefix + "+", "-m", "comment", "--comment", table, "-j", "ACCEPT"},
		{"-o", linkPrefix + "+", "-m", "comment", "--comment", table, "-j", "ACCEPT"},
	}
}

// openFirewall makes iptables' FORWARD chain let pod traffic pass, if it would not. It returns
// what it cannot do as one line, or "".
func openFirewall(ctx context.Context, s wire.Setup) (warning string, err error) {
	if s.Rootless {
		return "", nil // the namespace is ours alone
	}
	if strings.Contains(output(ctx, "iptables", "-w", "-S", "FORWARD"), "-P FORWARD DROP") {
		for _, rule := range forwardRules() {
			if run(ctx, "", "iptables", append([]string{"-w", "-C", "FORWARD"}, rule...)...) == nil {
				continue
			}
			if err := run(ctx, "", "iptables", append([]string{"-w", "-I", "FORWARD"}, rule...)...); err != nil {
				return "", fmt.Errorf("let pod traffic through the host's firewall: %w", err)
			}
		}
	}
	if strings.Contains(output(ctx, "nft", "list", "tables"), "inet firewalld") {
		return fmt.Sprintf("firewalld rejects what pods send and receive unless it is told otherwise: "+
			"firewall-cmd --permanent --zone=trusted --add-source=%s && firewall-cmd --reload", s.ClusterCIDR), nil
	}
	return "", nil
}

// closeFirewall takes our rules out again.
func closeFirewall(ctx context.Context, s wire.Setup) {
	if s.Rootless {
		return
	}
	for _, rule := range forwardRules() {
		for run(ctx, "", "iptables", append([]string{"-w", "-D", "FORWARD"}, rule...)...) == nil && ctx.Err() == nil {
			continue
		}
	}
}

// output is what a program prints, or nothing if it is missing or fails.
func output(ctx context.Context, name string, args ...string) string {
	path, err := wire.Find(name)
	if err != nil {
		return ""
	}
	out, err := exec.CommandContext(ctx, path, args...).Output()
	if err != nil {
		return ""
	}
	return string(bytes.TrimSpace(out))
}
