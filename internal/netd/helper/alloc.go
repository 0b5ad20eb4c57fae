package helper

import (
	"encoding/binary"
	"fmt"
	"net/netip"

	"github.com/podman-swarm/podman-swarm/internal/netd/wire"
)

// allocator hands out the addresses of a range, least recently used first, so that an address
// comes back as late as possible: clients of a dead pod must not reach its successor.
//
// It is not safe for concurrent use.
type allocator struct {
	cidr netip.Prefix
	free []netip.Addr // in the order they will be handed out
	used map[netip.Addr]bool
}

// newAllocator knows the addresses in use and the one handed out last (it may be invalid). The
// network address, the gateway after it and the broadcast address are never handed out.
func newAllocator(cidr netip.Prefix, used []netip.Addr, last netip.Addr) *allocator {
	a := &allocator{cidr: cidr, used: make(map[netip.Addr]bool, len(used))}
	for _, ip := range used {
		a.used[ip] = true
	}
	first, count := toInt(cidr.Addr())+2, uint32(1)<<(32-cidr.Bits())-3
	start := uint32(0)
	if cidr.Contains(last) && toInt(last) >= first {
		start = (toInt(last) - first + 1) % count
	}
	for i := range count {
		if ip := fromInt(first + (start+i)%count); !a.used[ip] {
			a.free = append(a.free, ip)
		}
	}
	return a
}

func (a *allocator) take() (netip.Addr, error) {
	if len(a.free) == 0 {
		return netip.Addr{}, fmt.Errorf("%w %s (%d in use)", wire.ErrExhausted, a.cidr, len(a.used))
	}
	ip := a.free[0]
	a.free = a.free[1:]
	a.used[ip] = true
	return ip, nil
}

// give returns an address. One that is not in use is ignored, so giving twice is harmless.
func (a *allocator) give(ip netip.Addr) {
	if a.used[ip] {
		delete(a.used, ip)
		a.free = append(a.free, ip)
	}
}

func toInt(ip netip.Addr) uint32 {
	b := ip.As4()
	return binary.BigEndian.Uint32(b[:])
}

func fromInt(n uint32) netip.Addr {
	return netip.AddrFrom4([4]byte(binary.BigEndian.AppendUint32(nil, n)))
}
