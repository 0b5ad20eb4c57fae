package raftnet

import (
	"strings"

	"github.com/hashicorp/raft"
)

// mark stands between the two parts of an address. No host, port or node name holds it.
const mark = "#"

// Address is a server's address as Raft knows it: where, and who. So it is another one for every
// incarnation of a node, and Raft, which refuses to know two servers at one address, can.
func Address(addr, server string) raft.ServerAddress { return raft.ServerAddress(addr + mark + server) }

// Split undoes Address.
func Split(a raft.ServerAddress) (addr, server string) {
	addr, server, _ = strings.Cut(string(a), mark)
	return addr, server
}
