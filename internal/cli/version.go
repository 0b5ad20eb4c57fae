package cli

import (
	"fmt"
	"io"

	"github.com/podman-swarm/podman-swarm/internal/version"
)

// printRelease names the psctl release; kubectl's own lines (client and server) follow it.
func printRelease(out io.Writer) {
	_, _ = fmt.Fprintf(out, "psctl Version: %s\n", version.Swarm())
}
