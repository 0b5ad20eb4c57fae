// Package simnet is a network in one process, for tests: datagrams, streams and calls between hosts that
// are delayed, lost, doubled and cut off, in one direction or both. Nothing in it blocks but channels
// and timers, so it lives in the virtual time of testing/synctest as well.
package simnet
