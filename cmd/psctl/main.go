// Command psctl is the command line of a Podman Swarm cluster.
package main

import "github.com/podman-swarm/podman-swarm/internal/cli"

func main() { cli.Main() }
