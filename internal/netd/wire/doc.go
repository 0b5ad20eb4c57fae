// Package wire is what the agent's side of the pod network and its helper tell each other: requests
// and replies as JSON, one per packet of a unix socket, with a descriptor passed along where one is
// asked for. It also knows what both have to: where things lie and which programs are needed.
package wire
