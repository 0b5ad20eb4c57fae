// Package show prints what the extension API answers: tables as kubectl prints them, or the answer
// itself as JSON or YAML. Both psctl and podman-swarm print with it, so that the same thing looks
// the same wherever it is asked for.
package show
