// Package drill rehearses the loss of a node: one node watches, another one plays dead (package
// playdead). What is known beforehand is a plan, which --dry-run shows; what is measured stands beside
// its budget.
package drill
