// Package single tells which pods must not run twice at a time.
package single
