// Package control runs the controllers of Kubernetes: what makes a Deployment into ReplicaSets,
// a ReplicaSet into pods, and a deleted namespace empty.
//
// They are upstream's own, built by upstream's own constructors (the controller descriptors of
// kube-controller-manager), so a controller that upstream adds, drops or gates is added, dropped
// or gated here by the next upgrade. What this package decides is small: which of them make no
// sense on this cluster (omitted, each with its reason), how many workers they get, whose name
// they act under and how they stop.
//
// Run may be called, stopped and called again in one process: leadership comes and goes. Informers
// outlive a run, event handlers do not (package tap).
package control
