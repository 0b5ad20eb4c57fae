// Package fence decides when a node must take itself for the one that is cut off, and stop what the
// others are about to run in its place: pods of StatefulSets, and of volumes that one node writes.
//
// The other half of the rule is in control/liveness: a side with a majority takes such pods as ended
// ReplaceAfter later. ADR 0010 has the sum of the times below. Silence alone never stops anything else.
package fence
