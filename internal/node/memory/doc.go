// Package memory keeps the process small: how often garbage is collected, and what is given back to
// the kernel when the node has come to rest.
package memory
