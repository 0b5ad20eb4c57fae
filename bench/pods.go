package main

import (
	"context"
	"fmt"
	"os"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/podman-swarm/podman-swarm/bench/measure"
)

const (
	podsPerRound = 30
	// commandParallel `podman run` at a time: more is not faster on two cores.
	commandParallel = 4
	// aftermath is what is waited before CPU time is read: what Running pods still cause, such as
	// their events, is part of their price.
	aftermath = time.Second
)

// pods compares 30 pods through the API with the same engine driven by a bare loop and with plain
// `podman run`, in turn, so that a noisy machine is noisy for all of them. Both machines have
// Podman's service running: whether it has to be started first is not a matter of pods.
func (b *bench) pods(ctx context.Context) error {
	if _, err := b.swarm.Lab(ctx, "service", b.swarm.Name, "start"); err != nil {
		return err
	}
	defer b.swarm.Lab(context.WithoutCancel(ctx), "service", b.swarm.Name, "stop")
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
			wall[k.name] = append(wall[k.name], measure.MS(w))
			cpu[k.name] = append(cpu[k.name], measure.MS(c)/podsPerRound)
		}
	}
	for _, k := range kinds {
		budget := ""
		if k.name == "API" {
			budget = "2000 ms"
		}
		b.table.Add("30 pods to Running, "+k.name, measure.Median(wall[k.name]), "ms", budget, fmt.Sprintf("median of %d, %.0f CPU-ms each", b.rounds, measure.Median(cpu[k.name])))
	}
	b.table.Add("CPU per pod, API", measure.Median(cpu["API"]), "ms", "80 ms", "everything on the host")
	b.table.Add("pods per second, share of the bare loop", 100*measure.Median(wall["bare loop"])/measure.Median(wall["API"]), "%", "80 % (goal 90)", "")
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
	if err := measure.Sleep(ctx, aftermath); err != nil {
		return 0, 0, err
	}
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
		if err := measure.Sleep(ctx, 100*time.Millisecond); err != nil {
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
	script := fmt.Sprintf("cpu() { cat %[4]s; }; c=$(cpu); t=$(date +%%s%%N); "+
		"seq %[1]d | xargs -P %[2]d -I{} podman run -d --name run{} %[3]s >/dev/null; "+
		"t=$(($(date +%%s%%N)-t)); sleep %[5]v; echo $t $(($(cpu)-c)); podman rm -fa -t 0 >/dev/null",
		podsPerRound, commandParallel, image, cpuFile, aftermath.Seconds())
	return b.timed(ctx, "sh", "-c", script)
}

// timed runs a command on the bare host that prints its own wall and CPU time in nanoseconds.
func (b *bench) timed(ctx context.Context, args ...string) (wall, cpu time.Duration, err error) {
	out, errOut, err := b.bare.Run(ctx, "", args...)
	if err != nil {
		return 0, 0, fmt.Errorf("%w: %s", err, errOut)
	}
	if _, err := fmt.Sscan(out, (*int64)(&wall), (*int64)(&cpu)); err != nil {
		return 0, 0, fmt.Errorf("read %q: %w", out, err)
	}
	return wall, cpu, nil
}
