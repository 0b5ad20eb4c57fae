// Package disk is what a replica keeps on disk: Raft's log, vote and snapshots, and the name of
// the lineage they belong to.
//
//	DIR/lock                      held by the process that uses DIR
//	DIR/current                   which lineage this replica follows, its name in it, and which one it
//	                              came from as long as that is needed
//	DIR/raft/LINEAGE/meta         term and vote, and how far the log certainly reached
//	DIR/raft/LINEAGE/log/N.log    log entries from index N on
//	DIR/raft/LINEAGE/snapshots/   state up to an index
//
// A replica moves to another lineage by making that one's directory whole under another name, then
// writing "current", then renaming: at every moment one lineage counts, and it is complete.
//
// Every byte that matters is covered by a CRC32C and every file carries a format version. Opening
// reads everything once. What a power failure can leave behind (an unfinished write at the very
// end of the log, one of the two copies in meta, temporary files) is repaired with a warning;
// anything else is a DamageError, because a replica that forgot something it acknowledged must
// not vote.
package disk
