// Package logs is how a node speaks: one line per fact on standard error, upstream's messages among
// them, those about its insides lowered.
package logs
