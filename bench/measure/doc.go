// Package measure is what the benches share: figures and their table, what processes use, and how
// the writes of a swarm are measured.
package measure
