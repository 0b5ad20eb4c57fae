package lab

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"syscall"

	"golang.org/x/sync/errgroup"
)

// Cluster is hosts whose agents form one swarm.
type Cluster struct {
	Hosts []*Host
}

// NewCluster describes n hosts named from first on (h31, h32, ...); nothing is made yet.
func NewCluster(repo string, first, n int, flags ...string) (*Cluster, error) {
	c := &Cluster{}
	for i := range n {
		h, err := New(repo, fmt.Sprintf("h%d", first+i), flags...)
		if err != nil {
			return nil, err
		}
		c.Hosts = append(c.Hosts, h)
	}
	return c, nil
}

// each does something on several hosts at the same time.
func each(ctx context.Context, hosts []*Host, do func(ctx context.Context, h *Host) error) error {
	g, ctx := errgroup.WithContext(ctx)
	for _, h := range hosts {
		g.Go(func() error {
			if err := do(ctx, h); err != nil {
				return fmt.Errorf("%s: %w", h.Name, err)
			}
			return nil
		})
	}
	return g.Wait()
}

// Add makes the machines; Remove ends them and forgets their disks.
func (c *Cluster) Add(ctx context.Context) error {
	return each(ctx, c.Hosts, func(ctx context.Context, h *Host) error { return h.Add(ctx) })
}

// Remove powers the machines off, removes their disks and mends the network between them.
func (c *Cluster) Remove(ctx context.Context) error {
	return errors.Join(c.Heal(ctx), each(ctx, c.Hosts, func(ctx context.Context, h *Host) error { return h.Remove(ctx) }))
}

// Form begins a swarm on the first host and lets all others join it, as a person does: init, then the
// join command that it printed, pasted on each of the others.
func (c *Cluster) Form(ctx context.Context) error {
	first := c.Hosts[0]
	out, err := first.Swarm(ctx, "init", "--advertise-addr", first.Addr(), "--no-service")
	if err != nil {
		return err
	}
	paste, err := JoinCommand(out)
	if err != nil {
		return err
	}
	if err := first.StartAgent(ctx); err != nil {
		return fmt.Errorf("%s: %w", first.Name, err)
	}
	return each(ctx, c.Hosts[1:], func(ctx context.Context, h *Host) error {
		if _, err := h.Swarm(ctx, append(slices.Clone(paste), "--advertise-addr", h.Addr(), "--no-service")...); err != nil {
			return err
		}
		return h.StartAgent(ctx)
	})
}

// JoinCommand finds the command for newcomers in what init printed, without the program's name.
func JoinCommand(out string) ([]string, error) {
	for line := range strings.Lines(out) {
		if words := strings.Fields(line); len(words) > 2 && words[0] == "podman-swarm" && words[1] == "join" {
			return words[1:], nil
		}
	}
	return nil, fmt.Errorf("no join command in %q", out)
}

// Swarm runs podman-swarm on the host with its data directory.
func (h *Host) Swarm(ctx context.Context, args ...string) (string, error) {
	inside, _ := h.DataDir()
	out, errOut, err := h.Run(ctx, "", append(append([]string{h.program()}, args...), "--data-dir", inside)...)
	if err != nil {
		return out, fmt.Errorf("podman-swarm %s on %s: %w: %s%s", strings.Join(args, " "), h.Name, err, out, errOut)
	}
	return out, nil
}

// Leader asks a host who leads.
func (c *Cluster) Leader(ctx context.Context, via *Host) (*Host, error) {
	var status struct {
		Leader string `json:"leader"`
	}
	if err := via.Get(ctx, "/swarm/v1/status", &status); err != nil {
		return nil, err
	}
	for _, h := range c.Hosts {
		if h.Name == status.Leader {
			return h, nil
		}
	}
	return nil, fmt.Errorf("%s says that %q leads", via.Name, status.Leader)
}

// Except are the hosts that are none of those.
func (c *Cluster) Except(those ...*Host) []*Host {
	var out []*Host
	for _, h := range c.Hosts {
		if !slices.Contains(those, h) {
			out = append(out, h)
		}
	}
	return out
}

func names(hosts []*Host) []string {
	var out []string
	for _, h := range hosts {
		out = append(out, h.Name)
	}
	return out
}

// Partition cuts every wire between the two sides in the same instant.
func (c *Cluster) Partition(ctx context.Context, left, right []*Host) error {
	_, err := c.Hosts[0].Lab(ctx, "partition", strings.Join(names(left), ","), strings.Join(names(right), ","))
	return err
}

// Heal mends every wire.
func (c *Cluster) Heal(ctx context.Context) error {
	_, err := c.Hosts[0].Lab(ctx, "heal")
	return err
}

// Crash cuts the power of machines in the same instant. Their disks stay.
func (c *Cluster) Crash(ctx context.Context, hosts ...*Host) error {
	_, err := c.Hosts[0].Lab(ctx, append([]string{"crash"}, names(hosts)...)...)
	return err
}

// Boot powers machines on again and starts their agents, as a service of the system would.
func (c *Cluster) Boot(ctx context.Context, hosts ...*Host) error {
	return each(ctx, hosts, func(ctx context.Context, h *Host) error {
		if _, err := h.Lab(ctx, "boot", h.Name); err != nil {
			return err
		}
		return h.StartAgent(ctx)
	})
}

// Pause freezes every process of a host; Resume thaws them.
func (h *Host) Pause(ctx context.Context) error {
	_, err := h.Lab(ctx, "pause", h.Name)
	return err
}

// Resume undoes Pause.
func (h *Host) Resume(ctx context.Context) error {
	_, err := h.Lab(ctx, "resume", h.Name)
	return err
}

// RestartAgent stops the agent by SIGTERM and starts it again.
func (h *Host) RestartAgent(ctx context.Context) error {
	if err := h.SignalAgent(ctx, syscall.SIGTERM); err != nil {
		return err
	}
	return h.StartAgent(ctx)
}
