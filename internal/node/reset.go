package node

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"github.com/podman-swarm/podman-swarm/internal/netd"
	"github.com/podman-swarm/podman-swarm/internal/node/datadir"
	"github.com/podman-swarm/podman-swarm/internal/node/logs"
	"github.com/podman-swarm/podman-swarm/internal/podman"
	"github.com/podman-swarm/podman-swarm/internal/podspec"
	"github.com/podman-swarm/podman-swarm/internal/volume"
)

// Reset removes what a node made on this machine: its containers, volumes, pod network and data. It
// refuses while the agent runs. Running it again finishes what an interrupted run left. Whatever
// else lies in the data directory stays. When no agent can start, and before anything is removed, it
// calls stay, which sees to it that none will start later.
func Reset(ctx context.Context, cfg Config, stay func(context.Context) error) error {
	log := logs.New(cfg.LogLevel)
	if err := datadir.RefuseForeign(cfg.DataDir); err != nil {
		return err
	}
	h, err := prepare(cfg, log)
	if err != nil {
		return err
	}
	defer h.dir.Close() //nolint:errcheck // the lock ends with the process
	if err := stay(ctx); err != nil {
		return err
	}
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
	if err := removeVolumes(ctx, h); err != nil {
		return err
	}
	if err := os.RemoveAll(h.runDir); err != nil {
		return fmt.Errorf("remove runtime directory: %w", err)
	}
	_ = os.Remove(filepath.Dir(h.runDir)) // other nodes of this machine may be in there
	return datadir.Remove(h.cfg.DataDir, log)
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

// removeVolumes unmounts and removes the pods' directories, in memory and on disk. Unmounting comes
// first: below them a directory of the host may be mounted, which is not ours to empty. Rootless,
// files may belong to other users of Podman's user namespace.
func removeVolumes(ctx context.Context, h *host) error {
	volumes := volume.New(volume.Config{Dir: filepath.Join(h.cfg.DataDir, "pods"), Rootless: rootless(), Log: h.log.With("part", "volume")})
	uids, err := volumes.List()
	if err != nil {
		return err
	}
	for _, uid := range uids {
		if err := volumes.Teardown(ctx, uid); err != nil {
			return err
		}
	}
	return nil
}
