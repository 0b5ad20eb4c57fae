// Command podman-swarm is a node of a Podman Swarm cluster.
package main

import (
	"context"
	"fmt"
	"os"
	"os/signal"
	"strings"
	"syscall"

	"github.com/podman-swarm/podman-swarm/internal/node"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM)
	err := run(ctx)
	stop()
	if err != nil {
		for line := range strings.Lines(err.Error()) {
			fmt.Fprintf(os.Stderr, "podman-swarm: %s\n", strings.TrimSpace(line))
		}
		os.Exit(exitStatus(err))
	}
}

// finalStatus tells systemd not to try again.
const finalStatus = 78 // EX_CONFIG of sysexits.h

func exitStatus(err error) int {
	if node.Over(err) {
		return finalStatus
	}
	return 1
}

func run(ctx context.Context) error {
	h, err := thisHost()
	if err != nil {
		return err
	}
	h.initNode, h.joinNode, h.resetNode = node.Init, node.Join, node.Reset
	c := root()
	addSwarm(c, h)
	return c.ExecuteContext(ctx)
}
