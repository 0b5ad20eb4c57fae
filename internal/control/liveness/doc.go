// Package liveness turns what gossip knows into what Kubernetes knows: the conditions of Nodes, the
// readiness of the pods on them, and the end of pods that could not run twice.
//
// It runs on the leader only, and it judges for the side of a partition that the leader is on (ADR 0005,
// ADR 0010). All rules are in verdict.go and compile.go, which are pure; controller.go carries them out.
// A node that is back is told so by its own agent, which alone knows whether it is ready.
package liveness
