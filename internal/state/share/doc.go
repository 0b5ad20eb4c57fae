// Package share lets many callers have one thing done for all of them.
package share
