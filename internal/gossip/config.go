package gossip

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/netip"

	"github.com/hashicorp/memberlist"
)

// Config says who this member is and how it reaches the others.
type Config struct {
	// Name is this node's name, unique in the cluster.
	Name string
	// Addr is the host:port at which others reach this member, by datagram and by stream. It may
	// differ from what is bound here.
	Addr string
	// Bind is the host:port of the UDP socket.
	Bind string
	// Packets is used instead of a UDP socket at Bind when it is not nil: a simulation's network.
	// Its addresses are *net.UDPAddr.
	Packets net.PacketConn
	// Keys seal the datagrams: 32 bytes each, the first one seals, all of them open.
	Keys [][]byte
	// Label is the cluster's ID: what carries another is not listened to.
	Label string
	// Listener yields the streams that others open, Dial opens one to an address.
	Listener net.Listener
	Dial     func(ctx context.Context, addr string) (net.Conn, error)
	// Meta is what the others are told about this member, at most MaxMeta bytes.
	Meta []byte
	Log  *slog.Logger
}

const (
	// MaxMeta is how many bytes a member can tell about itself: memberlist's limit without the flags.
	MaxMeta = memberlist.MetaMaxSize - 1
	maxName = 253 // a node's name is a DNS name
)

func (c Config) withDefaults() Config {
	if c.Log == nil {
		c.Log = slog.New(slog.DiscardHandler)
	}
	c.Log = c.Log.With("part", "gossip")
	return c
}

// validate reports everything that is wrong at once.
func (c Config) validate() error {
	var errs []error
	wrong := func(format string, args ...any) { errs = append(errs, fmt.Errorf(format, args...)) }
	if c.Name == "" || len(c.Name) > maxName {
		wrong("gossip: name %q has %d bytes, must have 1 to %d", c.Name, len(c.Name), maxName)
	}
	if c.Label == "" || len(c.Label) > memberlist.LabelMaxSize {
		wrong("gossip: label has %d bytes, must have 1 to %d", len(c.Label), memberlist.LabelMaxSize)
	}
	if c.Listener == nil || c.Dial == nil {
		wrong("gossip: Listener and Dial must be set")
	}
	if c.Packets == nil && c.Bind == "" {
		wrong("gossip: Bind must be set")
	}
	if err := checkMeta(c.Meta); err != nil {
		errs = append(errs, err)
	}
	if _, err := ringOf(c.Keys); err != nil {
		errs = append(errs, err)
	}
	return errors.Join(errs...)
}

func checkMeta(meta []byte) error {
	if len(meta) > MaxMeta {
		return fmt.Errorf("gossip: metadata has %d bytes, at most %d are spread", len(meta), MaxMeta)
	}
	return nil
}

// close gives back what the caller handed over.
func (c Config) close() {
	if c.Listener != nil {
		_ = c.Listener.Close()
	}
	if c.Packets != nil {
		_ = c.Packets.Close()
	}
}

// resolve turns host:port into one address: memberlist knows members by address only, and its own
// resolving knows no deadline.
func resolve(ctx context.Context, addr string) (netip.AddrPort, error) {
	if a, err := netip.ParseAddrPort(addr); err == nil {
		return usable(addr, a)
	}
	host, port, err := net.SplitHostPort(addr)
	if err != nil {
		return netip.AddrPort{}, fmt.Errorf("gossip address %q: %w", addr, err)
	}
	number, err := net.DefaultResolver.LookupPort(ctx, "udp", port)
	if err != nil {
		return netip.AddrPort{}, fmt.Errorf("gossip address %q: %w", addr, err)
	}
	ips, err := net.DefaultResolver.LookupNetIP(ctx, "ip", host)
	if err != nil {
		return netip.AddrPort{}, fmt.Errorf("gossip address %q: %w", addr, err)
	}
	return usable(addr, netip.AddrPortFrom(ips[0], uint16(number))) //nolint:gosec // LookupPort answers 0 to 65535
}

func usable(addr string, a netip.AddrPort) (netip.AddrPort, error) {
	ip := a.Addr().Unmap()
	switch {
	case ip.IsUnspecified():
		return netip.AddrPort{}, fmt.Errorf("gossip address %q: nobody can be reached at it: name one of this host's addresses", addr)
	case ip.Zone() != "":
		return netip.AddrPort{}, fmt.Errorf("gossip address %q: zones mean nothing on other hosts", addr)
	case a.Port() == 0:
		return netip.AddrPort{}, fmt.Errorf("gossip address %q: the port must not be 0", addr)
	}
	return netip.AddrPortFrom(ip, a.Port()), nil
}
