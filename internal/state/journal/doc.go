// Package journal is the record of a conflict: what is kept when two lineages changed the same key, so
// that a person can see what a merge overwrote, and put it back.
package journal
