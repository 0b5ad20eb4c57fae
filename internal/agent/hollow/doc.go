// Package hollow is a machine that only pretends: every image exists, every container runs until it
// is stopped, every probe succeeds, and nothing of it is real. An agent on it lets anybody rehearse
// a swarm larger than their machines. Its node says so in a label (Label), loudly.
package hollow

// Label is on every node whose pods only pretend to run.
const Label = "podman-swarm.io/hollow"
