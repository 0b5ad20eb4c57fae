// Command podman-swarm-netd is the network helper of a node. The agent carries it inside its own
// binary and runs it; it is not meant to be started by hand.
package main

import (
	"context"
	"fmt"
	"os"

	"github.com/podman-swarm/podman-swarm/internal/netd/helper"
)

func main() {
	if err := helper.Main(context.Background(), os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, "podman-swarm-netd:", err)
		os.Exit(1)
	}
}
