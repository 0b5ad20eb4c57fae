package worker

import (
	"context"
	"time"

	"github.com/podman-swarm/podman-swarm/internal/agent/fence"
	"github.com/podman-swarm/podman-swarm/internal/agent/plan"
)

// deadline is the end of a container's grace period. It follows the pod: a second deletion may
// shorten it while we wait. So does the fence that comes down, if the pod must not run twice: it must
// have ended when others replace it, whatever grace it was given before.
type deadline struct {
	w     *Worker
	start time.Time
	probe *int64 // the grace of the probe that failed, in seconds; nil: the pod's
	least time.Time
	cut   time.Time // since when the node has been cut off, as far as it matters to the pod; zero: it is not
}

func newDeadline(w *Worker, k plan.Kill) *deadline {
	d := &deadline{w: w, start: time.Now()}
	if k.Probe != nil {
		d.probe = k.Probe.TerminationGracePeriodSeconds
	}
	return d
}

// end returns when the grace is over as things are, and a channel that is closed when they change.
func (d *deadline) end() (time.Time, <-chan struct{}) {
	pod, _, changed := d.w.current()
	g := orphanGrace
	if pod != nil {
		g = time.Duration(plan.Grace(pod)) * time.Second
		if d.probe != nil && pod.DeletionTimestamp == nil {
			g = time.Duration(*d.probe) * time.Second
		}
	}
	end := d.start.Add(g)
	if d.cut.IsZero() && d.w.hasty && d.w.host.Fence.Cut() {
		d.cut = time.Now()
	}
	if last := d.cut.Add(fence.StopWithin); !d.cut.IsZero() && last.Before(end) {
		end = last
	}
	if end.Before(d.least) {
		end = d.least
	}
	return end, changed
}

// left is what remains of the grace period.
func (d *deadline) left() time.Duration {
	end, _ := d.end()
	return time.Until(end)
}

// atLeast leaves the container this much time from now, whatever the pod says.
func (d *deadline) atLeast(least time.Duration) { d.least = time.Now().Add(least) }

// wait waits for c; false when the grace period or ctx ended first.
func (d *deadline) wait(ctx context.Context, c <-chan struct{}) bool {
	for {
		end, changed := d.end()
		timer := time.NewTimer(time.Until(end))
		select {
		case <-c:
			timer.Stop()
			return true
		case <-timer.C:
			return false
		case <-ctx.Done():
			timer.Stop()
			return false
		case <-changed:
			timer.Stop()
		}
	}
}
