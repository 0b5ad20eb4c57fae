package wire

import (
	"net"
	"net/netip"
	"slices"
	"sync"
	"sync/atomic"
	"time"
)

const (
	maxHandshakes = 256 // in flight
	maxFromOne    = 32  // of these, from one address
	// grace is how long a handshake may keep this node waiting before it makes room for others. Real peers take
	// some round trips; what this node itself is slow at is not held against them, or a burst of real peers
	// would keep chasing itself away.
	grace = 500 * time.Millisecond
)

// gate bounds the handshakes in flight, so that strangers who connect and dawdle cost little and keep nobody out.
// When it is full, the address with the most of them makes room, by the one that has kept this node waiting
// longest: for another address that has fewer at once, else only when its grace is over.
type gate struct {
	mu     sync.Mutex
	inside []place
	counts map[netip.Prefix]int
}

type place struct {
	visitor
	from netip.Prefix
}

// visitor is a connection during its handshake.
type visitor interface {
	RemoteAddr() net.Addr
	Close() error
	// waited is how long it has kept this node waiting so far.
	waited(now time.Time) time.Duration
}

// enter admits a connection, perhaps by closing another; false leaves it to the caller to close.
func (g *gate) enter(v visitor, now time.Time) bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.counts == nil {
		g.counts = map[netip.Prefix]int{}
	}
	from := prefix(v.RemoteAddr())
	switch {
	case g.counts[from] >= maxFromOne:
		if !g.makeRoom(from, now, grace) {
			return false
		}
	case len(g.inside) >= maxHandshakes:
		greediest, least := g.greediest(), grace
		if g.counts[greediest] > g.counts[from]+1 {
			least = 0
		}
		if !g.makeRoom(greediest, now, least) {
			return false
		}
	}
	g.inside = append(g.inside, place{v, from})
	g.counts[from]++
	return true
}

// leave is called when the handshake has ended in any way. False when the connection has left already, perhaps
// because it was closed to make room.
func (g *gate) leave(v visitor) bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	i := slices.IndexFunc(g.inside, func(p place) bool { return p.visitor == v })
	if i < 0 {
		return false
	}
	g.remove(i)
	return true
}

// makeRoom closes the slowest of an address, unless it has waited less than that.
func (g *gate) makeRoom(from netip.Prefix, now time.Time, least time.Duration) bool {
	slowest, longest := -1, least-1
	for i, p := range g.inside {
		if p.from == from {
			if d := p.waited(now); d > longest {
				slowest, longest = i, d
			}
		}
	}
	if slowest < 0 {
		return false
	}
	_ = g.inside[slowest].Close()
	g.remove(slowest)
	return true
}

func (g *gate) remove(i int) {
	from := g.inside[i].from
	if g.counts[from]--; g.counts[from] == 0 {
		delete(g.counts, from)
	}
	g.inside = slices.Delete(g.inside, i, i+1)
}

// greediest is the address with the most handshakes; of several, the one that came first.
func (g *gate) greediest() netip.Prefix {
	var most netip.Prefix
	for _, p := range g.inside {
		if g.counts[p.from] > g.counts[most] {
			most = p.from
		}
	}
	return most
}

// prefix is an address as bounds count it: an IPv6 host owns 64 bits of addresses.
func prefix(a net.Addr) netip.Prefix {
	ap, err := netip.ParseAddrPort(a.String())
	if err != nil {
		return netip.Prefix{}
	}
	ip, bits := ap.Addr().Unmap().WithZone(""), 32
	if ip.Is6() {
		bits = 64
	}
	p, err := ip.Prefix(bits)
	if err != nil {
		return netip.Prefix{}
	}
	return p
}

// arrival is an accepted connection that measures how long it keeps this node waiting until it is settled.
type arrival struct {
	*net.TCPConn
	born    time.Time
	total   atomic.Int64 // of the reads that have ended
	since   atomic.Int64 // when the read under way began, from born; 0: none
	settled atomic.Bool
}

// Read implements net.Conn.
func (a *arrival) Read(p []byte) (int, error) {
	if a.settled.Load() {
		return a.TCPConn.Read(p)
	}
	begun := time.Since(a.born)
	a.since.Store(max(int64(begun), 1))
	n, err := a.TCPConn.Read(p)
	a.since.Store(0)
	a.total.Add(int64(time.Since(a.born) - begun))
	return n, err
}

func (a *arrival) waited(now time.Time) time.Duration {
	d := a.total.Load()
	if since := a.since.Load(); since > 0 {
		d += max(int64(now.Sub(a.born))-since, 0)
	}
	return time.Duration(d)
}
