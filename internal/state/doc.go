// Package state is the replicated store: an ordered map of keys with one revision per mutation,
// kept by Raft.
//
// A mutation is a compare-and-swap proposed to the leader, ordered and made durable by Raft, and
// decided inside the state machine, so that every replica comes to the same result and the same
// revision. Each replica serves reads, old revisions and watches from its own memory:
//
//	Apply --> leader --> Raft's log (package disk) --> state machine (package machine) --> View, Watch
//
// Raft may be stopped and started again inside a Store, after an error of the disk; the state
// machine outlives it, so reads notice nothing.
package state
