// Package gossip knows who is alive: every node's view of the cluster's members, kept by
// hashicorp/memberlist.
//
// Datagrams (probes, rumours) go through a UDP socket of its own, sealed with AES-256-GCM by a ring
// of keys and bound to the cluster's label. Streams (whole states, probes that got no answer by
// datagram) come from Config.Listener and Config.Dial, which are mutual TLS. Whoever holds a key is
// believed: identity is the business of the certificates.
//
// What memberlist does not give is added here:
//
//   - dead members are remembered until Forget, with the moment they were lost;
//   - a member that left is told apart from one that died: memberlist hides the difference from its
//     users, so each member's metadata starts with a byte of flags, one of which says "leaving";
//   - metadata that changes often is spread at most a few times a second, and once more when it has
//     come to rest, because a rumour may miss a member;
//   - what a rumour missed is found within seconds: probes compare views (views.go);
//   - partitions heal: Run keeps trying known addresses that are not alive;
//   - Close waits. memberlist leaves goroutines and connections behind.
//
// Events arrive under memberlist's lock: they only write the book (members.go) and wake those who
// wait for Changed.
package gossip
