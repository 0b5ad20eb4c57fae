// Package schedule runs the Kubernetes scheduler: it gives every pod a node.
//
// It is upstream's, with upstream's default profile and settings. This package decides whose
// informers it uses, under which name it acts, and how it stops.
package schedule
