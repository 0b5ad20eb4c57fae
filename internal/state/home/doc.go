// Package home is where a replica lives: the log, vote and snapshots of the lineage that it follows,
// on disk or in memory, how its state machine comes from them, and how it moves to another lineage.
package home
