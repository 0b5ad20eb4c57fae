// Command podman-swarm-netd is the network helper of a node. The agent carries it inside its own
// binary and runs it; it is not meant to be started by hand.
package main

import (
	"context"
	"fmt"
	"os"
	"runtime"

	"github.com/podman-swarm/podman-swarm/internal/netd/helper"
)

// init keeps the process' first thread for main, which only init can: helper moves threads to pods'
// namespaces and lets them end there, but the first thread never ends. It would keep a pod's namespace
// alive for good, and be what others take for the namespace of this process.
func init() { runtime.LockOSThread() } //nolint:gochecknoinits // main itself may already be on another thread

func main() {
	if err := helper.Main(context.Background(), os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, "podman-swarm-netd:", err)
		os.Exit(1)
	}
}
