package join

import (
	"net"
	"net/netip"
	"sync"
	"time"
)

const (
	// maxFailures is how many wrong tokens one address may try in a guessWindow.
	maxFailures = 10
	guessWindow = time.Minute
	// maxStrangers bounds how many addresses are remembered.
	maxStrangers = 1024
)

// throttle slows down those who guess. Its zero value is ready.
type throttle struct {
	mu       sync.Mutex
	failures map[netip.Prefix]guesses
}

type guesses struct {
	since time.Time
	n     int
}

// allowed tells whether the address may try (again).
func (t *throttle) allowed(from netip.Prefix, now time.Time) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	g, ok := t.failures[from]
	return !ok || g.n < maxFailures || now.Sub(g.since) >= guessWindow
}

// failed remembers a wrong token.
func (t *throttle) failed(from netip.Prefix, now time.Time) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.failures == nil {
		t.failures = map[netip.Prefix]guesses{}
	}
	g, ok := t.failures[from]
	if !ok && len(t.failures) >= maxStrangers {
		t.forget(now)
	}
	if !ok || now.Sub(g.since) >= guessWindow {
		g = guesses{since: now}
	}
	g.n++
	t.failures[from] = g
}

// forget makes room: what is over goes, or else the oldest.
func (t *throttle) forget(now time.Time) {
	var oldest netip.Prefix
	for from, g := range t.failures {
		if now.Sub(g.since) >= guessWindow {
			delete(t.failures, from)
		} else if !oldest.IsValid() || g.since.Before(t.failures[oldest].since) {
			oldest = from
		}
	}
	if len(t.failures) >= maxStrangers {
		delete(t.failures, oldest)
	}
}

// stranger returns what counts as one address: an IPv4 address, or the /64 that one IPv6 host has.
func stranger(addr net.Addr) netip.Prefix {
	var ip netip.Addr
	if addr != nil {
		if ap, err := netip.ParseAddrPort(addr.String()); err == nil {
			ip = ap.Addr().Unmap().WithZone("")
		}
	}
	bits := 64
	if ip.Is4() {
		bits = 32
	}
	p, err := ip.Prefix(bits)
	if err != nil { // not an IP connection: all of those count as one
		return netip.PrefixFrom(netip.IPv6Unspecified(), 128)
	}
	return p
}
