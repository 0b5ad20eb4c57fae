// Package lead runs on one node at a time what only one may do.
package lead
