// Package space tells whether a disk has room for writes.
package space
