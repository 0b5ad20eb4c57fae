package helper

import (
	"crypto/sha256"
	"encoding/base32"
	"net"
	"net/netip"
	"strings"
)

// LinkName is the name of a pod's link on the host side: 15 bytes, the kernel's limit, of which 12
// carry 60 bits of the id's hash. The link's alias holds the id, for people.
func LinkName(id string) string {
	sum := sha256.Sum256([]byte(id))
	return linkPrefix + strings.ToLower(base32.StdEncoding.EncodeToString(sum[:])[:12])
}

// isLinkName tells a name that LinkName may have made.
func isLinkName(name string) bool {
	tail, ok := strings.CutPrefix(name, linkPrefix)
	return ok && len(tail) == 12 && strings.Trim(tail, "abcdefghijklmnopqrstuvwxyz234567") == ""
}

// podMAC is the address of a pod's eth0. It follows from its IP, so neighbours need not ask.
func podMAC(ip netip.Addr) net.HardwareAddr {
	b := ip.As4()
	return net.HardwareAddr{0x0a, 0x58, b[0], b[1], b[2], b[3]}
}

// hostMAC is the address of every pod link's host side. Each is alone with its pod on its wire.
func hostMAC() net.HardwareAddr { return net.HardwareAddr{0x02, 'p', 's', 'w', 0, 1} }
