// Package plan is the pure half of the agent: what is observed of a pod's containers goes in, and
// out come the next actions (Compute) and what the API is told of the pod (Status). It follows
// upstream's kubelet rule for rule, but knows nothing of Podman, clocks or the API server.
package plan
