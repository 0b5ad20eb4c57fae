// Package state is the replicated store: an ordered map of keys with one revision per mutation,
// kept by Raft.
//
// A mutation is a compare-and-swap proposed to the leader, ordered and made durable by Raft, and
// decided inside the state machine, so that every replica comes to the same result and the same
// revision. Each replica serves reads, old revisions and watches from its own memory:
//
//	Apply --> leader --> Raft's log (package disk) --> state machine (package machine) --> View, Watch
//
// Replicas know of each other by gossip (Membership). The leader keeps up to five voters (package
// voters). What a replica does about the history it follows is decided in package lineage:
//
//   - When most voters are lost, the most advanced survivor forks: all that is in its log, under a new
//     name, alone; the others join it. The new lineage is on disk before its Raft starts, and a
//     stream of Raft belongs to one lineage and one server.
//   - When lineages meet, the replicas of all but the winner hand over what it does not have to its
//     leader, in turn, and then follow it as new and empty ones. Until such a one has caught up, the
//     old state is what is read, and it stays on disk: should the winner be lost, the replica goes
//     back. Handing over again does no harm, so power may be lost at any step.
//
// Raft may be stopped and started again inside a Store, after an error of the disk; the state
// machine outlives it, so reads notice nothing.
package state
