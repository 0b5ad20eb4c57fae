// Package machine knows the computer the agent runs on: what it has, what it lacks, and how both
// are told in a Node object.
package machine
