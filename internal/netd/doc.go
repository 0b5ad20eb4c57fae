// Package netd gives pods their network: a namespace, an address and a route for each, and sockets
// inside that network for the agent.
//
// Two processes share the work. The agent side is Net: it needs no privileges. The other side is
// the helper, one small process that Start launches and that Main runs; they talk over a unix
// socket, one message per packet, descriptors passed along.
//
// The shape is the same for root and for an ordinary user; only the pod network's home differs.
// For root it is the host's own network namespace. For an ordinary user it is a namespace that the
// helper makes inside Podman's user and mount namespace, pinned by a bind mount below RunDir/netns
// and connected to the outside by slirp4netns (or pasta).
//
// Every pod has a veth pair. Its inner end, eth0, carries the pod's address as a /32 with a default
// route through the gateway, the node's first address, which sits on the device psw0. Its outer end
// carries nothing but a host route to the pod. There is no bridge: every packet is routed, also
// between pods of one node, so a single set of ip rules sees all of them, whatever br_netfilter is
// set to, and no pod can speak for another's address. Neighbour entries are fixed; pods neither ask
// nor answer ARP.
//
// No packet goes through the helper and nothing is remembered only in it: which pod has which
// address is read back from the kernel. Either side may be killed at any time; Start adopts what it
// finds and removes what is only half there. The host route is a pod's commit mark: it is made last.
package netd
