package node

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"

	"github.com/podman-swarm/podman-swarm/internal/netd"
	"github.com/podman-swarm/podman-swarm/internal/podman"
	"github.com/podman-swarm/podman-swarm/internal/podspec"
)

// Reset removes what a node made on this machine: its containers, its pod network, its data. It
// refuses while the agent runs. Running it again finishes what an interrupted run left.
func Reset(ctx context.Context, cfg Config) error {
	log := newLog(cfg.LogLevel)
	h, err := prepare(cfg, log)
	if err != nil {
		return err
	}
	defer h.dir.close()
	client, err := openPodman(ctx, h)
	if err != nil {
		return err
	}
	defer client.Close() //nolint:errcheck // a service that stays leaves by itself when idle
	if err := removePods(ctx, client, h.cfg.DataDir); err != nil {
		return err
	}
	if err := netd.Destroy(ctx, h.netdConfig()); err != nil {
		return fmt.Errorf("remove pod network: %w", err)
	}
	return errors.Join(removeTree(ctx, h.cfg.DataDir), os.RemoveAll(h.runDir))
}

// removePods removes the containers and pods of the node that has this data directory.
func removePods(ctx context.Context, client *podman.Client, dataDir string) error {
	ours := map[string]string{podspec.LabelDataDir: dataDir}
	containers, err := client.Containers(ctx, ours)
	if err != nil {
		return fmt.Errorf("list containers: %w", err)
	}
	for _, c := range containers {
		if err := client.Remove(ctx, c.ID, true); err != nil && !errors.Is(err, podman.ErrNotFound) {
			return fmt.Errorf("remove container %s: %w", c.Name, err)
		}
	}
	pods, err := client.Pods(ctx, ours)
	if err != nil {
		return fmt.Errorf("list pods: %w", err)
	}
	for _, p := range pods {
		if err := client.RemovePod(ctx, p.Name); err != nil && !errors.Is(err, podman.ErrNotFound) {
			return fmt.Errorf("remove pod %s: %w", p.Name, err)
		}
	}
	return nil
}

// removeTree removes a directory. Rootless, containers leave files of other users of their user
// namespace behind, which only Podman's side of it may remove.
func removeTree(ctx context.Context, dir string) error {
	err := os.RemoveAll(dir)
	if err == nil || !rootless() {
		return err
	}
	if out, err := exec.CommandContext(ctx, "podman", "unshare", "rm", "-rf", dir).CombinedOutput(); err != nil {
		return fmt.Errorf("remove %s: %w: %s", dir, err, out)
	}
	return nil
}
