package main

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/podman-swarm/podman-swarm/bench/measure"
	"github.com/podman-swarm/podman-swarm/test/lab"
)

// startRuns is how often the agent is started for the median.
const startRuns = 3

// start measures from exec to /readyz, first on an empty directory, then on the same one again.
func (b *bench) start(ctx context.Context) error {
	var fresh, again, freshCPU []float64
	inside, _ := b.swarm.DataDir()
	for range startRuns {
		if _, _, err := b.swarm.Run(ctx, "", "sh", "-c", "rm -rf "+inside+"/*"); err != nil {
			return err
		}
		for _, into := range []*[]float64{&fresh, &again} {
			cpu, err := cpuTime(b.swarm)
			if err != nil {
				return err
			}
			begin := time.Now()
			if err := b.swarm.StartAgent(ctx); err != nil {
				return err
			}
			*into = append(*into, measure.MS(time.Since(begin)))
			after, err := cpuTime(b.swarm)
			if err != nil {
				return err
			}
			if into == &fresh {
				freshCPU = append(freshCPU, measure.MS(after-cpu))
			}
			if err := b.swarm.SignalAgent(ctx, syscall.SIGTERM); err != nil {
				return err
			}
		}
	}
	b.table.Add("start to ready, empty directory", measure.Median(fresh), "ms", "2500 ms (goal 2000)", fmt.Sprintf("median of %d, process start included; %.0f CPU-ms, best %.0f ms", startRuns, measure.Median(freshCPU), slices.Min(fresh)))
	b.table.Add("start to ready, again", measure.Median(again), "ms", "", fmt.Sprintf("median of %d, best %.0f ms", startRuns, slices.Min(again)))
	return b.swarm.StartAgent(ctx)
}

// nodeUse sums the agent, its helpers and, while it is there, Podman's service.
func nodeUse(h *lab.Host) (total measure.Use, parts []string, err error) {
	for _, name := range []string{"podman-swarm agent", "podman-swarm-netd", "slirp4netns", "pasta", "system service"} {
		var sum measure.Use
		for _, pid := range h.Pids(name) {
			u, err := measure.ProcessUse(pid)
			if err != nil {
				return measure.Use{}, nil, err
			}
			sum.RSS += u.RSS
			sum.Anon += u.Anon
		}
		if sum.RSS > 0 {
			parts = append(parts, fmt.Sprintf("%s %.0f/%.0f", name, sum.RSS, sum.Anon))
			total.RSS += sum.RSS
			total.Anon += sum.Anon
		}
	}
	return total, parts, nil
}

func (b *bench) idleFigures(ctx context.Context) error {
	if err := measure.Sleep(ctx, b.idle); err != nil {
		return err
	}
	total, parts, err := nodeUse(b.swarm)
	if err != nil {
		return err
	}
	note := fmt.Sprintf("after %s; RSS/anonymous of %s", b.idle, strings.Join(parts, ", "))
	b.table.Add("idle memory, RSS", total.RSS, "MB", "135 MB (goal 110)", note)
	b.table.Add("idle memory, anonymous", total.Anon, "MB", "70 MB (goal 50)", "Docker Swarm's manager: 125/40")
	before, err := cpuTime(b.swarm)
	if err != nil {
		return err
	}
	const window = 30 * time.Second
	if err := measure.Sleep(ctx, window); err != nil {
		return err
	}
	after, err := cpuTime(b.swarm)
	if err != nil {
		return err
	}
	b.table.Add("idle CPU", 100*(after-before).Seconds()/window.Seconds(), "% of a core", "", "over 30 s, everything on the host")
	return nil
}

// cpuTime is the CPU time of everything that ever ran on the host.
func cpuTime(h *lab.Host) (time.Duration, error) {
	return readCPU("/sys/fs/cgroup/cpuacct/lab/" + h.Name + "/cpuacct.usage")
}
