// Package lineage decides, from what peers tell of themselves, what a replica is to do about the
// history it follows: stay, begin a new one because its majority is lost, or join another.
//
// It is pure: every replica that sees the same comes to the same verdict, and nothing here reads a
// clock or a network. A wrong verdict, made on news that were late, costs work but no data: what a
// replica does next is safe whoever else decided otherwise.
package lineage
