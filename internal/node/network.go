package node

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/netip"
	"sync/atomic"
	"time"

	"github.com/podman-swarm/podman-swarm/internal/netd"
)

// helperRetry is the pause between attempts to bring the network helper back.
const helperRetry = time.Second

// podNetwork is netd with a helper that comes back: pods keep their cables while it is away, and the
// new one adopts them.
type podNetwork struct {
	cfg     netd.Config
	log     *slog.Logger
	current atomic.Pointer[netd.Net]
}

func (h *host) netdConfig() netd.Config {
	return netd.Config{
		Rootless: rootless(), PodCIDR: netip.MustParsePrefix(h.cfg.PodCIDR), RunDir: h.runDir,
		Helper: h.netd, Log: h.log.With("part", "netd"),
	}
}

func startNetwork(ctx context.Context, h *host) (*podNetwork, error) {
	p := &podNetwork{cfg: h.netdConfig(), log: h.log.With("part", "netd")}
	p.cfg.Dial = p.DialContext // ports published through a helper that was lost go on
	n, err := netd.Start(ctx, p.cfg)
	if err != nil {
		return nil, fmt.Errorf("pod network: %w", err)
	}
	p.current.Store(n)
	return p, nil
}

// run brings the helper back whenever it is lost, until ctx ends.
func (p *podNetwork) run(ctx context.Context) error {
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-p.current.Load().Dead():
		}
		p.log.Warn("network helper lost, starting another")
		for {
			n, err := netd.Start(ctx, p.cfg)
			if err == nil {
				p.current.Swap(n).Close()
				break
			}
			p.log.Error("start network helper", "err", err)
			select {
			case <-ctx.Done():
				return nil
			case <-time.After(helperRetry):
			}
		}
	}
}

func (p *podNetwork) close() { p.current.Load().Close() }

// The rest is what the agent asks of a network.

func (p *podNetwork) Sysctls() map[string]string { return p.current.Load().Sysctls() }

func (p *podNetwork) Add(ctx context.Context, id string) (netd.Attachment, error) {
	return p.current.Load().Add(ctx, id)
}

func (p *podNetwork) Remove(ctx context.Context, id string) error {
	return p.current.Load().Remove(ctx, id)
}

func (p *podNetwork) List(ctx context.Context) ([]netd.Attachment, error) {
	return p.current.Load().List(ctx)
}

func (p *podNetwork) DialContext(ctx context.Context, network, addr string) (net.Conn, error) {
	return p.current.Load().DialContext(ctx, network, addr)
}

func (p *podNetwork) DialPod(ctx context.Context, id, network string, port uint16) (net.Conn, error) {
	return p.current.Load().DialPod(ctx, id, network, port)
}

func (p *podNetwork) Publish(ctx context.Context, hp netd.HostPort) (io.Closer, error) {
	return p.current.Load().Publish(ctx, hp)
}
