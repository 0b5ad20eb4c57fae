// Package state is the replicated store: an ordered map of keys with one revision per mutation, kept by Raft.
package state
