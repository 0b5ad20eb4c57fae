package main

import (
	"bufio"
	"context"
	"fmt"
	"os"
	"slices"
	"strings"
	"syscall"
	"time"

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
			*into = append(*into, ms(time.Since(begin)))
			after, err := cpuTime(b.swarm)
			if err != nil {
				return err
			}
			if into == &fresh {
				freshCPU = append(freshCPU, ms(after-cpu))
			}
			if err := b.swarm.SignalAgent(ctx, syscall.SIGTERM); err != nil {
				return err
			}
		}
	}
	b.table.add("start to ready, empty directory", median(fresh), "ms", "2500 ms (goal 2000)", fmt.Sprintf("median of %d, process start included; %.0f CPU-ms, best %.0f ms", startRuns, median(freshCPU), slices.Min(fresh)))
	b.table.add("start to ready, again", median(again), "ms", "", fmt.Sprintf("median of %d, best %.0f ms", startRuns, slices.Min(again)))
	return b.swarm.StartAgent(ctx)
}

// use is what the processes of a node hold.
type use struct{ rss, anon float64 } // MB

// nodeUse sums the agent, its helpers and, while it is there, Podman's service.
func nodeUse(h *lab.Host) (total use, parts []string, err error) {
	for _, name := range []string{"podman-swarm agent", "podman-swarm-netd", "slirp4netns", "pasta", "system service"} {
		var sum use
		for _, pid := range h.Pids(name) {
			u, err := processUse(pid)
			if err != nil {
				return use{}, nil, err
			}
			sum.rss += u.rss
			sum.anon += u.anon
		}
		if sum.rss > 0 {
			parts = append(parts, fmt.Sprintf("%s %.0f/%.0f", name, sum.rss, sum.anon))
			total.rss += sum.rss
			total.anon += sum.anon
		}
	}
	return total, parts, nil
}

func processUse(pid int) (use, error) {
	f, err := os.Open(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		return use{}, err
	}
	defer f.Close()
	var u use
	for lines := bufio.NewScanner(f); lines.Scan(); {
		var kb float64
		switch line := lines.Text(); {
		case scan(line, "VmRSS: %g kB", &kb):
			u.rss = kb / 1024
		case scan(line, "RssAnon: %g kB", &kb):
			u.anon = kb / 1024
		}
	}
	return u, nil
}

func scan(line, format string, value *float64) bool {
	_, err := fmt.Sscanf(line, format, value)
	return err == nil
}

func (b *bench) idleFigures(ctx context.Context) error {
	if err := sleep(ctx, b.idle); err != nil {
		return err
	}
	total, parts, err := nodeUse(b.swarm)
	if err != nil {
		return err
	}
	note := fmt.Sprintf("after %s; RSS/anonymous of %s", b.idle, strings.Join(parts, ", "))
	b.table.add("idle memory, RSS", total.rss, "MB", "135 MB (goal 110)", note)
	b.table.add("idle memory, anonymous", total.anon, "MB", "70 MB (goal 50)", "Docker Swarm's manager: 125/40")
	before, err := cpuTime(b.swarm)
	if err != nil {
		return err
	}
	const window = 30 * time.Second
	if err := sleep(ctx, window); err != nil {
		return err
	}
	after, err := cpuTime(b.swarm)
	if err != nil {
		return err
	}
	b.table.add("idle CPU", 100*(after-before).Seconds()/window.Seconds(), "% of a core", "", "over 30 s, everything on the host")
	return nil
}

// cpuTime is the CPU time of everything that ever ran on the host.
func cpuTime(h *lab.Host) (time.Duration, error) {
	return readCPU("/sys/fs/cgroup/cpuacct/lab/" + h.Name + "/cpuacct.usage")
}

func sleep(ctx context.Context, d time.Duration) error {
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-time.After(d):
		return nil
	}
}
