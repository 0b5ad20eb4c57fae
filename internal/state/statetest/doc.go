// Package statetest is a network and a membership for replicas in one process, for tests: links with
// delay, partitions, dead nodes, and gossip that notices all that late. Everything waits on channels
// and timers only, so it runs in the virtual time of testing/synctest.
package statetest
