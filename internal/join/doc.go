// Package join admits newcomers to a cluster, protocol "psw-join/1".
//
// A newcomer holds a token, which names the cluster's CA by its hash and carries a secret. It
// connects to any node over TLS without a certificate of its own and checks that the node's
// certificate is by that CA before it says anything. Then, each message being its length (4 bytes,
// big endian) and JSON:
//
//	newcomer  request: token, name, certificate request, address, release, clock
//	node      answer: certificate, keys, peers, pod range; or a refusal
//	newcomer  confirmation: everything was checked and is on disk, beside its place
//	node      receipt; the newcomer puts the keys into place
//
// The node writes the newcomer's record (/swarm/nodes/NAME) before it answers, unconfirmed and with
// an expiry, and removes it when the exchange fails; after a crash the expiry does. The record
// reserves the pod range and one use of the token. Of two records with one range the one that was
// created first keeps it: each node looks after writing, and the store's revisions order them. A
// use is counted, in the token's record (/swarm/tokens/ID), when the newcomer confirms.
//
// A newcomer is known by its name and key: when it comes again with both, it gets the same range
// and no other use is counted.
package join
