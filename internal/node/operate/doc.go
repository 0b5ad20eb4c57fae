// Package operate does what the extension API /swarm/v1 asks for, on this node: the swarm at a
// glance, tokens, the journal of conflicts, backups, and who belongs to the swarm.
package operate
