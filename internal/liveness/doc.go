// Package liveness turns what is known of a node's health into what the scheduler and the eviction
// controller act on: the taints of the Node object.
//
// It replaces upstream's nodelifecycle controller, which learns of a dead node from leases that were
// not renewed. Conditions are written by the node itself; a node that cannot write any more is the
// business of gossip (ADR 6), which will speak through the same conditions.
package liveness
