// Package single tells which pods must not run twice at a time: for those who decide where pods run, and for
// those who run them.
package single
