package helper

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"strings"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/podman-swarm/podman-swarm/internal/netd/wire"
)

// network is the pod network as the helper sees it: a thread inside its namespace and a netlink
// socket opened there.
type network struct {
	wire.Setup
	home  *thread
	nl    *netlink.Handle
	fresh bool // the namespace was made by this process
}

// openNetwork enters the pod network's namespace. When rootless it is made if it is not there, or
// if what is there is only a leftover file, and create allows it; otherwise wire.ErrNotFound is returned.
func openNetwork(s wire.Setup, create bool) (*network, error) {
	n := &network{Setup: s}
	var err error
	n.home, err = newThread(func() error {
		if err := n.enterHome(create); err != nil {
			return err
		}
		n.nl, err = netlink.NewHandle(unix.NETLINK_ROUTE)
		return err
	})
	if err != nil {
		return nil, err
	}
	return n, nil
}

func (n *network) enterHome(create bool) error {
	if !n.Rootless {
		return nil
	}
	if isNS(n.Home()) {
		return enter(n.Home())
	}
	if !create {
		return wire.ErrNotFound
	}
	if err := unpin(n.Home()); err != nil {
		return err
	}
	n.fresh = true
	return newNS(n.Home())
}

func (n *network) close() {
	n.nl.Close()
	n.home.close()
}

// up makes the network ready for pods: forwarding, the gateway, the packet rules.
func (n *network) up(ctx context.Context) error {
	return n.home.do(func() error {
		if err := n.forwarding(); err != nil {
			return err
		}
		if err := n.upGateway(); err != nil {
			return fmt.Errorf("make network device %s: %w", device, err)
		}
		return run(ctx, rules(n.PodCIDR, n.ClusterCIDR), "nft", "-f", "-")
	})
}

func (n *network) forwarding() error {
	if n.Rootless {
		if err := n.setUp("lo"); err != nil {
			return err
		}
	}
	// Only when needed: writing it resets other settings of the host's interfaces.
	if b, err := os.ReadFile("/proc/sys/net/ipv4/ip_forward"); err == nil && strings.TrimSpace(string(b)) == "1" {
		return nil
	}
	if err := sysctl("ipv4/ip_forward", "1"); err != nil {
		return fmt.Errorf("let this host forward packets of pods: %w", err)
	}
	return nil
}

// upGateway makes psw0, a bridge without ports: a device that every kernel with containers has, to
// hold the gateway's address. Its alias names the node, so that a second one on the same host does
// not take the first one's pods for leftovers.
func (n *network) upGateway() error {
	link, err := n.nl.LinkByName(device)
	if isNoLink(err) {
		attrs := netlink.NewLinkAttrs()
		attrs.Name, attrs.MTU, attrs.HardwareAddr = device, n.MTU, hostMAC()
		if err := n.nl.LinkAdd(&netlink.Bridge{LinkAttrs: attrs}); err != nil {
			return err
		}
		link, err = n.nl.LinkByName(device)
	}
	if err != nil {
		return err
	}
	switch owner := link.Attrs().Alias; owner {
	case n.RunDir:
	case "": // new, or its maker died before this
		if err := n.nl.LinkSetAlias(link, n.RunDir); err != nil {
			return err
		}
	default:
		return fmt.Errorf("it belongs to the node of %q; stop that one, or remove the device", owner)
	}
	if err := n.setGateway(link); err != nil {
		return err
	}
	if err := n.nl.LinkSetUp(link); err != nil {
		return err
	}
	// An address that no pod has is answered here, not sent to the overlay or the default route.
	return n.nl.RouteReplace(n.voidRoute())
}

func (n *network) setGateway(link netlink.Link) error {
	want := host(n.Gateway())
	addrs, err := n.nl.AddrList(link, netlink.FAMILY_V4)
	if err != nil {
		return err
	}
	for _, a := range addrs {
		if a.IPNet.String() == want.String() {
			continue
		}
		pods, err := n.routes()
		if err != nil {
			return err
		}
		if len(pods) > 0 {
			return fmt.Errorf("its address is %s and %d pods use it; the pod range cannot change to %s under them",
				a.IP, len(pods), n.PodCIDR)
		}
		if err := n.nl.AddrDel(link, &a); err != nil {
			return err
		}
	}
	return n.nl.AddrReplace(link, &netlink.Addr{IPNet: want})
}

func (n *network) voidRoute() *netlink.Route {
	ones := n.PodCIDR.Bits()
	return &netlink.Route{
		Dst:  &net.IPNet{IP: n.PodCIDR.Addr().AsSlice(), Mask: net.CIDRMask(ones, 32)},
		Type: unix.RTN_UNREACHABLE, Priority: 1 << 16, Table: unix.RT_TABLE_MAIN,
	}
}

func (n *network) setUp(name string) error {
	link, err := n.nl.LinkByName(name)
	if err != nil {
		return err
	}
	return n.nl.LinkSetUp(link)
}

// routes returns the pods' host routes: link index to address.
func (n *network) routes() (map[int]netip.Addr, error) {
	links, err := n.links()
	if err != nil {
		return nil, err
	}
	ours := make(map[int]bool, len(links))
	for _, index := range links {
		ours[index] = true
	}
	list, err := n.nl.RouteListFiltered(netlink.FAMILY_V4,
		&netlink.Route{Table: unix.RT_TABLE_MAIN, Scope: netlink.SCOPE_LINK}, netlink.RT_FILTER_TABLE|netlink.RT_FILTER_SCOPE)
	if err != nil {
		return nil, fmt.Errorf("read routes: %w", err)
	}
	found := make(map[int]netip.Addr, len(links))
	for _, r := range list {
		if r.Dst == nil || !ours[r.LinkIndex] {
			continue
		}
		ip, ok := netip.AddrFromSlice(r.Dst.IP.To4())
		if ones, _ := r.Dst.Mask.Size(); ok && ones == 32 {
			found[r.LinkIndex] = ip
		}
	}
	return found, nil
}

// links returns the pods' links, name to index.
func (n *network) links() (map[string]int, error) {
	list, err := n.nl.LinkList()
	if err != nil {
		return nil, fmt.Errorf("read links: %w", err)
	}
	found := make(map[string]int)
	for _, l := range list {
		if a := l.Attrs(); l.Type() == "veth" && isLinkName(a.Name) {
			found[a.Name] = a.Index
		}
	}
	return found, nil
}

// cut removes a pod's link, with its peer, route and neighbour; nothing there is fine.
func (n *network) cut(name string) error {
	link, err := n.nl.LinkByName(name)
	if isNoLink(err) {
		return nil
	}
	if err != nil {
		return err
	}
	if err := n.nl.LinkDel(link); err != nil && !errors.Is(err, unix.ENODEV) {
		return fmt.Errorf("remove link %s: %w", name, err)
	}
	return nil
}

func isNoLink(err error) bool {
	var none netlink.LinkNotFoundError
	return errors.As(err, &none)
}

// host is the range of a single address.
func host(ip netip.Addr) *net.IPNet {
	return &net.IPNet{IP: ip.AsSlice(), Mask: net.CIDRMask(32, 32)}
}

// run runs a program with the given standard input; its words become the error's.
func run(ctx context.Context, stdin, name string, args ...string) error {
	path, err := wire.Find(name)
	if err != nil {
		return err
	}
	cmd := exec.CommandContext(ctx, path, args...)
	var out bytes.Buffer
	cmd.Stdin, cmd.Stdout, cmd.Stderr = strings.NewReader(stdin), &out, &out
	if err := cmd.Run(); err != nil {
		return fmt.Errorf("%s %s: %w: %s", name, strings.Join(args, " "), err, strings.TrimSpace(out.String()))
	}
	return nil
}
