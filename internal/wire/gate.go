package wire

import (
	"net"
	"net/netip"
	"slices"
	"sync"
	"time"
)

const (
	maxHandshakes = 256 // in flight
	maxFromOne    = 32  // of these, from one address
	// grace is how long a handshake may take before it makes room for others. Real ones take milliseconds; a
	// burst of real ones must not keep chasing itself away.
	grace = 250 * time.Millisecond
)

// gate bounds the handshakes in flight, so that strangers who connect and dawdle cost little and keep nobody out.
// When it is full, the oldest of the address with the most of them makes room: for another address that has
// fewer at once, else when its grace is over.
type gate struct {
	mu     sync.Mutex
	inside []visitor // the oldest first
	counts map[netip.Prefix]int
}

type visitor struct {
	conn  net.Conn
	from  netip.Prefix
	since time.Time
}

// enter admits a connection, perhaps by closing an older one; false leaves it to the caller to close.
func (g *gate) enter(c net.Conn, now time.Time) bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.counts == nil {
		g.counts = map[netip.Prefix]int{}
	}
	v := visitor{conn: c, from: from(c), since: now}
	switch {
	case g.counts[v.from] >= maxFromOne:
		if !g.makeRoom(v.from, now.Add(-grace)) {
			return false
		}
	case len(g.inside) >= maxHandshakes:
		greediest := g.greediest()
		before := now.Add(-grace)
		if g.counts[greediest] > g.counts[v.from]+1 {
			before = now
		}
		if !g.makeRoom(greediest, before) {
			return false
		}
	}
	g.inside = append(g.inside, v)
	g.counts[v.from]++
	return true
}

// leave is called when the handshake has ended in any way. False when the connection has left already, perhaps
// because it was closed to make room.
func (g *gate) leave(c net.Conn) bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	i := slices.IndexFunc(g.inside, func(v visitor) bool { return v.conn == c })
	if i < 0 {
		return false
	}
	g.remove(i)
	return true
}

// makeRoom closes the oldest of an address unless it is younger than that.
func (g *gate) makeRoom(from netip.Prefix, before time.Time) bool {
	i := slices.IndexFunc(g.inside, func(v visitor) bool { return v.from == from })
	if i < 0 || g.inside[i].since.After(before) {
		return false
	}
	g.inside[i].conn.Close()
	g.remove(i)
	return true
}

func (g *gate) remove(i int) {
	from := g.inside[i].from
	if g.counts[from]--; g.counts[from] == 0 {
		delete(g.counts, from)
	}
	g.inside = slices.Delete(g.inside, i, i+1)
}

// greediest is the address with the most handshakes; of several, the one that has waited longest.
func (g *gate) greediest() netip.Prefix {
	var most netip.Prefix
	for _, v := range g.inside {
		if g.counts[v.from] > g.counts[most] {
			most = v.from
		}
	}
	return most
}
