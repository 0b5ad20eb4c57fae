// Package raftnet carries Raft between the replicas of one lineage: streams that reach exactly the
// server they are meant for, and Raft's words in our log.
//
// A stream belongs to a lineage (whoever listens answers for that one only), and begins with the
// name of the server it is for. Without the second, a replica that lost its data and returned at
// the same address would be asked for the vote of the one that it was.
package raftnet
