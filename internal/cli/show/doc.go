// Package show is how the command lines talk: it prints what the extension API answers (tables as
// kubectl prints them, or the answer itself as JSON or YAML), tells progress, and asks before
// something is destroyed. Both psctl and podman-swarm use it, so that the same thing looks the same
// wherever it is asked for.
package show
