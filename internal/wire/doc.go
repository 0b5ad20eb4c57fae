// Package wire is the one port between the nodes of a cluster: TLS 1.3 in both directions, and what is
// spoken over a connection is named by ALPN.
//
//	Listener, Handle     streams of a protocol, accepted
//	Dial, DialNode       streams of a protocol, opened
//	Serve, Call          requests and answers, many at once over one kept connection per peer
//	Guests, DialGuest    the exception: a newcomer, who has no certificate yet
//
// A peer is who its certificate says: subject CN system:node:NAME and O system:nodes, signed by a CA of the
// cluster, for both ends of a connection. The cluster's CA also signs users and kubelet-like clients, none of
// which is a peer. Own certificate and believed CAs are asked for at every handshake, so neither a renewal nor
// a rotation needs a restart. What an open connection rests on is looked at again when the trust changes and every
// hour (FollowTrust): it ends with the certificate of its peer, unless that has shown a newer one for the same key.
// Neither a renewal nor a rotation cuts a connection between nodes that go along with it.
//
// A connection counts as open only when the accepting end has said so with one byte: in TLS 1.3 the dialing
// end would otherwise learn of its refusal at some later read. Dial's errors therefore are final, and a
// refusal comes before anything was sent.
//
// Strangers can make the port do little: a handshake has five seconds, handshakes are bounded in total and per
// address, and under pressure the slowest of the greediest address makes room (type gate). A peer that has
// gone silent is noticed in about five seconds, one that reads slowly never is mistaken for it (silence.go).
package wire
