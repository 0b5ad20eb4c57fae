package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"os"
	"path/filepath"
	"time"

	"golang.org/x/sync/errgroup"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/podman-swarm/podman-swarm/internal/netd"
	"github.com/podman-swarm/podman-swarm/internal/podman"
	"github.com/podman-swarm/podman-swarm/internal/podspec"
)

// cpuFile is the CPU time of everything on a lab host, as seen on the host.
const cpuFile = "/sys/fs/cgroup/cpuacct/cpuacct.usage"

// bareParallel is what podman.Client lets through at a time: more is not faster on two cores.
const bareParallel = 4

// bareLoop drives the engine as the agent does, with the same network helper and the very
// specifications that the agent would send, and does nothing else: no API, no status, no events.
type bareLoop struct {
	dir      string
	parallel int // pods at a time
	network  *netd.Net
	client   *podman.Client
	image    podman.Image
	facts    podspec.Facts
}

// runBare starts n pods, prints the wall and CPU nanoseconds that took, and removes them.
func runBare(ctx context.Context, n, parallel int) error {
	disk := "/var/lib/podman-swarm" // that an agent's files are on
	if os.Geteuid() != 0 {
		disk = os.Getenv("HOME")
	}
	dir, err := os.MkdirTemp(disk, "bare")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	self, err := os.Executable()
	if err != nil {
		return err
	}
	log := slog.New(slog.DiscardHandler)
	cfg := netd.Config{
		Rootless: os.Geteuid() != 0, PodCIDR: netip.MustParsePrefix("10.244.0.0/24"), RunDir: dir, Log: log,
		Helper: []string{filepath.Join(filepath.Dir(self), "podman-swarm-netd")},
	}
	network, err := netd.Start(ctx, cfg)
	if err != nil {
		return err
	}
	defer func() {
		network.Close()
		_ = netd.Destroy(ctx, cfg)
	}()
	b := bareLoop{dir: dir, parallel: parallel, network: network, client: podman.New(podman.Config{RunDir: dir, Log: log})}
	if err := b.prepare(ctx); err != nil {
		return err
	}
	pods := make([]*corev1.Pod, n)
	for i := range pods {
		pods[i] = pod(fmt.Sprintf("bare-%d", i), nil)
		pods[i].Namespace, pods[i].UID = ns, types.UID(fmt.Sprintf("bare-%d-%d", time.Now().UnixNano(), i))
	}
	cpu, err := readCPU(cpuFile)
	if err != nil {
		return err
	}
	begin := time.Now()
	err = b.each(ctx, pods, b.start)
	wall := time.Since(begin)
	time.Sleep(aftermath)
	after, cpuErr := readCPU(cpuFile)
	err = errors.Join(err, cpuErr, b.each(ctx, pods, b.remove))
	fmt.Println(wall.Nanoseconds(), (after - cpu).Nanoseconds())
	return err
}

func (b *bareLoop) prepare(ctx context.Context) (err error) {
	if b.facts.Podman, err = b.client.Info(ctx); err != nil {
		return err
	}
	b.facts.Node, b.facts.DataDir, b.facts.BootID = "bare", b.dir, "bare"
	b.image, err = b.client.Image(ctx, image)
	return err
}

func (b *bareLoop) each(ctx context.Context, pods []*corev1.Pod, do func(context.Context, *corev1.Pod) error) error {
	g, ctx := errgroup.WithContext(ctx)
	g.SetLimit(b.parallel)
	for _, p := range pods {
		g.Go(func() error { return do(ctx, p) })
	}
	return g.Wait()
}

func (b *bareLoop) start(ctx context.Context, p *corev1.Pod) error {
	at, err := b.network.Add(ctx, string(p.UID))
	if err != nil {
		return err
	}
	group, err := b.client.CreatePod(ctx, podspec.Pod(p, b.facts))
	if err != nil {
		return err
	}
	in := podspec.Input{
		Pod: p, Container: &p.Spec.Containers[0], Image: b.image, PodID: group, NetNS: at.NetNS, Hostname: p.Name,
		Host: b.facts, LogPath: filepath.Join(b.dir, string(p.UID)+".log"),
	}
	for name, path := range map[string]*string{"hosts": &in.Hosts, "resolv": &in.ResolvConf, "last": &in.TerminationLog} {
		*path = filepath.Join(b.dir, string(p.UID)+"-"+name)
		if err := os.WriteFile(*path, nil, 0o644); err != nil {
			return err
		}
	}
	spec, _, err := podspec.Container(in)
	if err != nil {
		return err
	}
	id, err := b.client.Create(ctx, spec)
	if err != nil {
		return err
	}
	return b.client.Start(ctx, id)
}

func (b *bareLoop) remove(ctx context.Context, p *corev1.Pod) error {
	return errors.Join(b.client.RemovePod(ctx, podspec.PodName(p)), b.network.Remove(ctx, string(p.UID)))
}

// readCPU reads a file with nanoseconds.
func readCPU(path string) (time.Duration, error) {
	data, err := os.ReadFile(path)
	if err != nil {
		return 0, err
	}
	var ns int64
	if _, err := fmt.Sscan(string(data), &ns); err != nil {
		return 0, fmt.Errorf("read %s: %w", path, err)
	}
	return time.Duration(ns), nil
}
