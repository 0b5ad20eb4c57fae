// Package agent runs this node's pods on Podman and tells the API server of them.
//
// Every pod has a worker: one goroutine that observes the pod's containers, plans (package plan),
// acts, and writes the status when something changed. A worker blocks where the pod has to wait, in a
// pull, in a hook, in a grace period, so pods never wait for each other. What a pod is follows from
// the API and from labels on containers alone: the agent may be killed at any moment and its
// successor adopts what it finds. Silence of the API or of Podman never stops a container.
package agent
