// Package nodetest makes swarms of nodes in one process for tests: real keys, real connections and
// gossip on loopback, real replicas of the state; no API and no pods.
package nodetest
