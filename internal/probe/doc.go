// Package probe asks containers how they are (exec, HTTP, TCP, gRPC) and runs their lifecycle hooks,
// with a kubelet's semantics, timing and words.
//
// Prober asks once. Workers asks again and again: one goroutine with a heap of due times for all
// probes of the node, and one goroutine per probe that is under way.
package probe
