// Package peers joins what the parts below the store know of other nodes: wire carries bytes to
// them, gossip says who is alive, and each node spreads a few words about itself (Meta). It gives
// the store its Network and Membership, and the rest of the node one list of members.
package peers
