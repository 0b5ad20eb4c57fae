package helper

import (
	"errors"
	"fmt"
	"math"
	"net"
	"net/netip"
	"os"
	"strings"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/podman-swarm/podman-swarm/internal/netd/wire"
)

// build makes a pod's namespace and connects it. On error the caller removes what is there.
func (n *network) build(id string, ip netip.Addr) error {
	var ns *os.File
	var inner *netlink.Handle
	err := onThread(func() error {
		if err := newNS(n.Path(id)); err != nil {
			return err
		}
		if err := tuneInside(); err != nil {
			return err
		}
		var err error
		if inner, err = netlink.NewHandle(unix.NETLINK_ROUTE); err != nil {
			return err
		}
		ns, err = os.Open(threadNS)
		return err
	})
	if inner != nil {
		defer inner.Close()
	}
	if err != nil {
		return err
	}
	defer func() { _ = ns.Close() }()
	attrs := netlink.NewLinkAttrs()
	attrs.Name, attrs.MTU, attrs.HardwareAddr = LinkName(id), n.MTU, hostMAC()
	veth := &netlink.Veth{
		LinkAttrs: attrs, PeerName: "eth0", PeerHardwareAddr: podMAC(ip),
		PeerNamespace: netlink.NsFd(ns.Fd()),
	}
	if err := n.nl.LinkAdd(veth); err != nil {
		return fmt.Errorf("make link %s: %w", attrs.Name, err)
	}
	if err := n.wireInside(inner, ip); err != nil {
		return fmt.Errorf("set up eth0: %w", err)
	}
	if err := n.wireOutside(veth, id, ip); err != nil {
		return fmt.Errorf("set up link %s: %w", attrs.Name, err)
	}
	return nil
}

const (
	portStart  = "net.ipv4.ip_unprivileged_port_start"
	pingGroups = "net.ipv4.ping_group_range"
)

// podSysctls is what Kubernetes users expect: ports below 1024 and ping without privileges.
func podSysctls() map[string]string {
	b, _ := os.ReadFile("/proc/self/gid_map")
	return map[string]string{portStart: "0", pingGroups: groupRange(b)}
}

// groupRange is the range of all groups that a user namespace knows, by its gid_map: the kernel
// refuses a range that ends with another.
func groupRange(gidMap []byte) string {
	end := uint64(0)
	for line := range strings.Lines(string(gidMap)) { // in the order of the first number
		var inside, outside, count uint64
		if _, err := fmt.Sscan(line, &inside, &outside, &count); err != nil || inside != end {
			break
		}
		end += count
	}
	return fmt.Sprintf("0 %d", min(max(end, 1)-1, math.MaxInt32))
}

// tuneInside runs in a pod's new namespace. IPv6 is off for eth0, which gets no IPv6 address, and
// stays on for lo.
func tuneInside() error {
	for name, value := range podSysctls() {
		if err := sysctl(strings.ReplaceAll(strings.TrimPrefix(name, "net."), ".", "/"), value); err != nil {
			return err
		}
	}
	return noIPv6("default")
}

func noIPv6(link string) error {
	err := sysctl("ipv6/conf/"+link+"/disable_ipv6", "1")
	if errors.Is(err, os.ErrNotExist) { // a kernel without IPv6
		return nil
	}
	return err
}

// wireInside gives eth0 its address and the way out, in the pod's namespace.
func (n *network) wireInside(nl *netlink.Handle, ip netip.Addr) error {
	lo := netlink.NewLinkAttrs()
	lo.Index = 1 // in every namespace
	if err := nl.LinkSetUp(&netlink.Device{LinkAttrs: lo}); err != nil {
		return err
	}
	eth0, err := nl.LinkByName("eth0")
	if err != nil {
		return err
	}
	index, gw := eth0.Attrs().Index, n.Gateway()
	if err := nl.AddrAdd(eth0, &netlink.Addr{IPNet: host(ip)}); err != nil {
		return err
	}
	if err := nl.LinkSetUp(eth0); err != nil {
		return err
	}
	if err := nl.NeighAdd(neighbour(index, gw, hostMAC())); err != nil {
		return err
	}
	if err := nl.RouteAdd(&netlink.Route{LinkIndex: index, Dst: host(gw), Scope: netlink.SCOPE_LINK}); err != nil {
		return err
	}
	return nl.RouteAdd(&netlink.Route{LinkIndex: index, Gw: gw.AsSlice(), Src: ip.AsSlice()})
}

// wireOutside connects the other end. The route is last: it marks the pod as complete.
func (n *network) wireOutside(link netlink.Link, id string, ip netip.Addr) error {
	name := link.Attrs().Name
	if err := n.nl.LinkSetAlias(link, id); err != nil { // for those who look at links
		return err
	}
	err := n.home.do(func() error {
		// Nothing but the pod's own address may come in here.
		if err := sysctl("ipv4/conf/"+name+"/rp_filter", "1"); err != nil {
			return err
		}
		return noIPv6(name)
	})
	if err != nil {
		return err
	}
	if err := n.nl.LinkSetUp(link); err != nil {
		return err
	}
	index := link.Attrs().Index
	if err := n.nl.NeighAdd(neighbour(index, ip, podMAC(ip))); err != nil {
		return err
	}
	return n.nl.RouteAdd(&netlink.Route{
		LinkIndex: index, Dst: host(ip), Scope: netlink.SCOPE_LINK, Src: n.Gateway().AsSlice(),
	})
}

func neighbour(link int, ip netip.Addr, mac net.HardwareAddr) *netlink.Neigh {
	return &netlink.Neigh{
		LinkIndex: link, Family: unix.AF_INET, State: netlink.NUD_PERMANENT,
		IP: ip.AsSlice(), HardwareAddr: mac,
	}
}

// erase removes a pod's link and pin, whatever of them is there.
func (n *network) erase(id string) error {
	return errors.Join(n.cut(LinkName(id)), unpin(n.Path(id)))
}

// whole tells whether a pod that is known is still connected.
func (n *network) whole(id string) bool {
	_, err := n.nl.LinkByName(LinkName(id))
	return err == nil && isNS(n.Path(id))
}

// socket makes an unconnected, non-blocking socket in the pod network, or in a pod when id is not
// empty. A socket belongs for ever to the namespace it was made in, whoever uses it.
func (n *network) socket(id, network string) (int, error) {
	family, kind, err := wire.SocketKind(network)
	if err != nil {
		return -1, err
	}
	fd := -1
	open := func() error {
		if fd, err = unix.Socket(family, kind|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0); err != nil {
			return fmt.Errorf("make a socket: %w", err)
		}
		if family == unix.AF_INET6 {
			_ = unix.SetsockoptInt(fd, unix.IPPROTO_IPV6, unix.IPV6_V6ONLY, 1)
		}
		if kind == unix.SOCK_STREAM { // as package net does for listeners; harmless for dialers
			_ = unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_REUSEADDR, 1)
		}
		return nil
	}
	switch {
	case id == "" && !n.Rootless: // every thread is at home
		err = open()
		return fd, err
	case id == "":
		err = n.home.do(open)
		return fd, err
	}
	err = onThread(func() error {
		if err := enter(n.Path(id)); err != nil {
			return err
		}
		return open()
	})
	return fd, err
}
