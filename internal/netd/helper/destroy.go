package helper

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/podman-swarm/podman-swarm/internal/netd/wire"
)

// destroy removes every trace of the pod network. Forwarding stays as it is: others may use it.
func destroy(ctx context.Context, s wire.Setup) error {
	stopOutlet(s)
	var errs []error
	n, err := openNetwork(s, false)
	switch {
	case errors.Is(err, wire.ErrNotFound): // the rootless namespace is gone, and with it all that was in it
	case err != nil:
		return err
	default:
		errs = append(errs, n.home.do(func() error { return n.down(ctx) }))
		n.close()
	}
	entries, err := os.ReadDir(s.Dir())
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		errs = append(errs, err)
	}
	for _, e := range entries {
		errs = append(errs, unpin(s.Path(e.Name())))
	}
	for _, path := range []string{s.Dir(), s.File("last"), wire.LogFile(s.RunDir)} {
		if err := os.Remove(path); err != nil && !errors.Is(err, os.ErrNotExist) {
			errs = append(errs, err)
		}
	}
	return errors.Join(errs...)
}

// down takes the network apart, unless it is another node's.
func (n *network) down(ctx context.Context) error {
	link, err := n.nl.LinkByName(device)
	if isNoLink(err) {
		return nil
	}
	if err != nil {
		return err
	}
	if owner := link.Attrs().Alias; owner != n.RunDir && owner != "" {
		return fmt.Errorf("network device %s belongs to the node of %q", device, owner)
	}
	links, err := n.links()
	if err != nil {
		return err
	}
	var errs []error
	for name := range links {
		errs = append(errs, n.cut(name))
	}
	if err := n.nl.RouteDel(n.voidRoute()); err != nil && !errors.Is(err, unix.ESRCH) {
		errs = append(errs, fmt.Errorf("remove route %s: %w", n.PodCIDR, err))
	}
	err = run(ctx, "", "nft", "delete", "table", "ip", table)
	if err != nil && !strings.Contains(err.Error(), "No such file or directory") {
		errs = append(errs, err)
	}
	closeFirewall(ctx, n.Setup)
	// Last: it says whose network this is, should we have to come back.
	return errors.Join(append(errs, n.nl.LinkDel(link))...)
}
