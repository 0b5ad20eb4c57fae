// Package datadir is the directory that makes a node the node it is: one process at a time has it,
// and no release reads what a newer one wrote.
package datadir
