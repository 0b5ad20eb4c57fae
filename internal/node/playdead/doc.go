// Package playdead is what a drill does to the node whose loss it rehearses: its process becomes
// another program, under the same PID, and with that every connection, port and lock of the agent is
// gone at once and nobody has said good-bye. That program kills the pods, lets a while pass, and
// becomes the agent again, by its own command line: a real start.
package playdead
