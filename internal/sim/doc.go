// Package sim is tests only: whole clusters in one process and virtual time.
//
// A node is what package node makes of its parts, less Kubernetes and TLS: the real state.Store on real
// files, the real gossip, the real verdicts of control/liveness and agent/fence, and small fakes of the
// rest: a decider that places pods (keys of the store) while its node leads, and a runtime that runs
// what the store says. Nodes meet in a network that delays, loses and doubles datagrams and is cut in one
// direction or both; their clocks are wrong; their disks fail, and lose what was not synced.
//
// test/scenarios/*.txtar tell stories (script_test.go lists their words). TestHistories makes up others
// (random_test.go) and prints their seeds. judge_test.go says what must be true of all of them. SWARM_SIM_NODES=50
// tells any of them of 50 nodes with 30 pods on each, every node of a story being a rack then.
package sim
