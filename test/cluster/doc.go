// Package cluster tests a swarm of several nodes as its users run it: real agents and real Podman on
// the hosts of test/lab, with power failures, cut wires and restarts under load. scripts/e2e runs it
// after the tests of a single host, rootful and rootless: $SWARM_CLUSTER_FLAGS are the flags of `lab
// add` for every host, $SWARM_CLUSTER_FIRST is the number of the first one (default 31).
//
// Bounds on time are those of the product's promises. They hold on a machine that does nothing else;
// what other processes take while something is measured stretches the bound by as much (lab.Noise).
//
// $SWARM_E2E_FULL=1 asks for all 20 drills; otherwise there are 5.
package cluster
