// Command bench measures what the design budgets, on lab hosts, and prints each figure beside its
// budget: `make bench`. It needs root (machines are made). Figures of one run compare with each
// other; machines are noisy, so quote medians and ratios.
package main

import (
	"context"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/podman-swarm/podman-swarm/bench/measure"
	"github.com/podman-swarm/podman-swarm/test/lab"
)

func main() {
	var b bench
	var bare, parallel int
	flag.StringVar(&b.repo, "repo", ".", "the checkout")
	flag.StringVar(&b.out, "out", "bench/results/latest.json", "where the JSON goes")
	flag.DurationVar(&b.idle, "idle", time.Minute, "rest before idle figures are read")
	flag.IntVar(&b.rounds, "rounds", 3, "rounds of the alternating pod comparison")
	flag.StringVar(&b.hostFlags, "host", "", "flags of `lab add`, for example --rootless")
	flag.StringVar(&b.only, "only", "", "measure one step only: start, idle, requests, scheduling, pods, loaded or swarms")
	flag.Func("swarms", "sizes of the swarms that are measured too, for example 3,10 (default none)", b.setSizes)
	flag.IntVar(&bare, "bare", 0, "internal: start that many pods by a bare loop on this machine")
	flag.IntVar(&parallel, "parallel", bareParallel, "internal: pods at a time of the bare loop")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	var err error
	if bare > 0 {
		err = runBare(ctx, bare, parallel)
	} else {
		err = b.run(ctx)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(1)
	}
}

// bench is one run.
type bench struct {
	repo, out, hostFlags, only string
	idle                       time.Duration
	rounds                     int
	sizes                      []int // of swarms

	swarm *lab.Host // runs the agent
	bare  *lab.Host // the same machine without it
	table measure.Report
}

func (b *bench) run(ctx context.Context) error {
	var err error
	if b.swarm, err = lab.New(b.repo, "h21", fields(b.hostFlags+" --no-service")...); err != nil {
		return err
	}
	if b.bare, err = lab.New(b.repo, "h22", fields(b.hostFlags)...); err != nil {
		return err
	}
	for _, h := range []*lab.Host{b.swarm, b.bare} {
		if err := h.Add(ctx); err != nil {
			return err
		}
		defer h.Remove(context.WithoutCancel(ctx))
	}
	defer func() { b.table.Print(os.Stdout) }()                  // also what was measured before a failure
	if b.only != "" && b.only != "start" && b.only != "swarms" { // which need none, or start it
		if err := b.swarm.StartAgent(ctx); err != nil {
			return err
		}
	}
	for _, step := range []struct {
		name string
		run  func(context.Context) error
	}{
		{"start", b.start},
		{"idle", b.idleFigures},
		{"requests", b.requests},
		{"scheduling", b.scheduling},
		{"pods", b.pods},
		{"loaded", b.loaded},
		{"swarms", b.swarms},
	} {
		if b.only != "" && b.only != step.name {
			continue
		}
		fmt.Fprintf(os.Stderr, "bench: %s ...\n", step.name)
		if err := step.run(ctx); err != nil {
			return fmt.Errorf("%s: %w", step.name, err)
		}
	}
	return b.save()
}

func (b *bench) setSizes(list string) error {
	for _, s := range strings.Split(list, ",") {
		n, err := strconv.Atoi(s)
		if err != nil {
			return err
		}
		b.sizes = append(b.sizes, n)
	}
	return nil
}

func (b *bench) save() error {
	path := b.out
	if !filepath.IsAbs(path) {
		path = filepath.Join(b.repo, path)
	}
	return b.table.Save(path)
}

func fields(s string) []string { return strings.Fields(s) }
