// Package e2e tests the product as its users run it: real agents and real Podman on the hosts of
// test/lab, rootful and rootless, on both Podman versions. One run tests one host, named by
// $SWARM_E2E_HOST and described by $SWARM_E2E_FLAGS (the flags of `lab add`); scripts/e2e runs it
// for every kind of host. It needs root, because making machines does; the agents do not.
//
// $SWARM_E2E_FULL=1 asks for all 50 kills and all 300 pod cycles of the survival tests. scripts/e2e
// sets it for one rootful and one rootless host; the others do a few of each.
//
// Tests that mostly wait run in parallel, after all others: those measure the machine or take it down.
package e2e
