// Package node is the composition root: it wires the parts of a node together, in order, and holds
// nothing else. Read Run first; it is the table of contents of a node.
package node
