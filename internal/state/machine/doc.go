// Package machine is the replicated state machine: an ordered map of keys in memory, changed only by
// the commands of Raft's log, the same on every replica.
//
//	log entry --> Command --> tree (now) and history (the recent past) --> View, Watch
//
//	another lineage's changes --> Merge --> tree, tombstones and the conflict journal
//
// The tree is copy-on-write: a View is a clone that shares all it can with the present. The past is
// kept once, as the events that watches read; an old View is the present with events undone.
package machine
