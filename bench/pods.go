package main

import (
	"context"
	"fmt"
	"log/slog"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/podman-swarm/podman-swarm/internal/netd"
	"github.com/podman-swarm/podman-swarm/internal/podman"
)

const (
	podsPerRound = 30
	// barePods are started at a time by the bare loop: more is not faster on two cores.
	bareParallel = 4
)

// pods compares 30 pods through the API with the same engine driven by a bare loop and with plain
// `podman run`, in turn, so that a noisy machine is noisy for all of them.
func (b *bench) pods(ctx context.Context) error {
	kinds := []struct {
		name string
		run  func(ctx context.Context, round int) (wall, cpu time.Duration, err error)
	}{
		{"API", b.podsByAPI},
		{"bare loop", b.podsByLoop},
		{"podman run", b.podsByCommand},
	}
	wall, cpu := map[string][]float64{}, map[string][]float64{}
	for round := range b.rounds + 1 {
		for _, k := range kinds {
			w, c, err := k.run(ctx, round)
			if err != nil {
				return fmt.Errorf("%s: %w", k.name, err)
			}
			if round == 0 { // warm: images mounted, caches filled
				continue
			}
			wall[k.name] = append(wall[k.name], ms(w))
			cpu[k.name] = append(cpu[k.name], ms(c)/podsPerRound)
		}
	}
	for _, k := range kinds {
		budget := ""
		if k.name == "API" {
			budget = "2000 ms"
		}
		b.table.add("30 pods to Running, "+k.name, median(wall[k.name]), "ms", budget, fmt.Sprintf("median of %d, %.0f CPU-ms each", b.rounds, median(cpu[k.name])))
	}
	b.table.add("CPU per pod, API", median(cpu["API"]), "ms", "80 ms", "everything on the host")
	b.table.add("pods per second, share of the bare loop", 100*median(wall["bare loop"])/median(wall["API"]), "%", "80 % (goal 90)", "")
	return nil
}

func (b *bench) podsByAPI(ctx context.Context, round int) (wall, cpu time.Duration, err error) {
	c, err := b.swarm.Clientset()
	if err != nil {
		return 0, 0, err
	}
	before, err := cpuTime(b.swarm)
	if err != nil {
		return 0, 0, err
	}
	name, begin := fmt.Sprintf("run-%d", round), time.Now()
	if _, err := c.AppsV1().Deployments(ns).Create(ctx, deployment(name, podsPerRound, map[string]string{"kubernetes.io/hostname": b.swarm.Name}), metav1.CreateOptions{}); err != nil {
		return 0, 0, err
	}
	running := func(p *corev1.Pod) bool { return p.Status.Phase == corev1.PodRunning }
	if err := watchPods(ctx, c, "app="+name, running, podsPerRound); err != nil {
		return 0, 0, err
	}
	wall = time.Since(begin)
	after, err := cpuTime(b.swarm)
	if err != nil {
		return 0, 0, err
	}
	if err := c.AppsV1().Deployments(ns).Delete(ctx, name, metav1.DeleteOptions{}); err != nil {
		return 0, 0, err
	}
	for {
		list, err := c.CoreV1().Pods(ns).List(ctx, metav1.ListOptions{LabelSelector: "app=" + name})
		if err != nil || len(list.Items) == 0 {
			return wall, after - before, err
		}
		if err := sleep(ctx, 100*time.Millisecond); err != nil {
			return 0, 0, err
		}
	}
}

// podsByLoop runs bareLoop on the machine without an agent.
func (b *bench) podsByLoop(ctx context.Context, _ int) (wall, cpu time.Duration, err error) {
	self, err := os.Executable()
	if err != nil {
		return 0, 0, err
	}
	return b.timed(ctx, self, "-bare", fmt.Sprint(podsPerRound))
}

func (b *bench) podsByCommand(ctx context.Context, _ int) (wall, cpu time.Duration, err error) {
	script := fmt.Sprintf("t=$(date +%%s%%N); seq %d | xargs -P %d -I{} podman run -d --name run{} %s >/dev/null; echo $((($(date +%%s%%N)-t)/1000000)); podman rm -fa -t 0 >/dev/null",
		podsPerRound, bareParallel, image)
	return b.timed(ctx, "sh", "-c", script)
}

// timed runs a command on the bare host that prints its own milliseconds.
func (b *bench) timed(ctx context.Context, args ...string) (wall, cpu time.Duration, err error) {
	before, err := cpuTime(b.bare)
	if err != nil {
		return 0, 0, err
	}
	out, errOut, err := b.bare.Run(ctx, "", args...)
	if err != nil {
		return 0, 0, fmt.Errorf("%w: %s", err, errOut)
	}
	after, err := cpuTime(b.bare)
	if err != nil {
		return 0, 0, err
	}
	var n int64
	if _, err := fmt.Sscan(strings.TrimSpace(out), &n); err != nil {
		return 0, 0, fmt.Errorf("read %q: %w", out, err)
	}
	return time.Duration(n) * time.Millisecond, after - before, nil
}

// bareLoop starts n pods the way the agent does, network and container, and nothing else. It prints
// the milliseconds it took and removes them.
func bareLoop(ctx context.Context, n int) error {
	dir, err := os.MkdirTemp("/run", "bare")
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
		Rootless: os.Geteuid() != 0, PodCIDR: netip.MustParsePrefix("10.244.9.0/24"), RunDir: dir, Log: log,
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
	client := podman.New(podman.Config{Socket: podman.DefaultSocket(), RunDir: dir, Log: log})
	begin := time.Now()
	ids, err := barePods(ctx, network, client, n)
	if err != nil {
		return err
	}
	fmt.Println(time.Since(begin).Milliseconds())
	var wg sync.WaitGroup
	for range bareParallel {
		wg.Go(func() {
			for id := range ids {
				_ = client.RemovePod(ctx, id)
				_ = network.Remove(ctx, id)
			}
		})
	}
	wg.Wait()
	return nil
}

// barePods starts the pods and returns their ids on a closed channel.
func barePods(ctx context.Context, network *netd.Net, client *podman.Client, n int) (<-chan string, error) {
	work, ids, failed := make(chan string, n), make(chan string, n), make(chan error, n)
	for i := range n {
		work <- fmt.Sprintf("bare%d", i)
	}
	close(work)
	var wg sync.WaitGroup
	for range bareParallel {
		wg.Go(func() {
			for id := range work {
				if err := barePod(ctx, network, client, id); err != nil {
					failed <- err
					return
				}
				ids <- id
			}
		})
	}
	wg.Wait()
	close(ids)
	select {
	case err := <-failed:
		return nil, err
	default:
		return ids, nil
	}
}

func barePod(ctx context.Context, network *netd.Net, client *podman.Client, id string) error {
	at, err := network.Add(ctx, id)
	if err != nil {
		return err
	}
	if _, err := client.CreatePod(ctx, podman.PodSpec{Name: id, NoInfra: true}); err != nil {
		return err
	}
	c, err := client.Create(ctx, podman.ContainerSpec{
		Name: id + "-c", Image: image, Pod: id,
		NetNS: podman.Namespace{Mode: "path", Value: at.NetNS},
	})
	if err != nil {
		return err
	}
	return client.Start(ctx, c)
}
