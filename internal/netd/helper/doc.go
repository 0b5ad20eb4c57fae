// Package helper is the process beside the agent that does what the pod network needs privileges
// for: namespaces, links, routes, packet rules, and sockets made on the inside. See package netd
// for the whole picture; this side runs where the pod network's home is and forgets nothing,
// because it remembers nothing: the kernel does.
package helper
