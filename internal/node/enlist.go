package node

import (
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"time"

	"github.com/podman-swarm/podman-swarm/internal/join"
	"github.com/podman-swarm/podman-swarm/internal/node/datadir"
	"github.com/podman-swarm/podman-swarm/internal/node/given"
	"github.com/podman-swarm/podman-swarm/internal/node/peers"
	"github.com/podman-swarm/podman-swarm/internal/pki"
	"github.com/podman-swarm/podman-swarm/internal/version"
	"github.com/podman-swarm/podman-swarm/internal/wire"
)

// Ends of a node that starting it again does not change.
var (
	errLeft    = errors.New("left the swarm")
	errRemoved = errors.New("this node was removed from the swarm")
	errHalf    = errors.New("a restore was cut off here")
)

// Over tells whether Run would end with the same error again, whenever it is tried.
func Over(err error) bool {
	return errors.Is(err, errLeft) || errors.Is(err, errRemoved) || errors.Is(err, errHalf)
}

// enlist makes this node a member of a swarm, unless it is one, and opens its keys: with --join an
// empty data directory is admitted to that swarm, otherwise it begins one.
func (h *host) enlist(ctx context.Context) (*pki.Authority, error) {
	if err := given.Pair(h.cfg.TLSCert, h.cfg.TLSKey); err != nil {
		return nil, err
	}
	if _, err := given.CAs(h.cfg.TLSCA); err != nil {
		return nil, err
	}
	interrupted := h.dir.Joining()
	switch {
	case h.known && !h.me.m.Left.IsZero():
		return nil, fmt.Errorf("node %s %w at %s: to use this machine again, run: podman-swarm reset --yes, then init or join",
			h.me.m.Name, errLeft, h.me.m.Left.Format(time.RFC3339))
	case h.known:
	case interrupted && h.cfg.Join == "":
		return nil, fmt.Errorf("%s was about to join a swarm when it was interrupted: say --join and --join-token again, or run: podman-swarm reset --yes", h.cfg.DataDir)
	case h.cfg.Join != "" && !interrupted && (exists(h.dir.File("pki")) || exists(h.dir.File("state"))):
		return nil, fmt.Errorf("--join %s: %s has the data of another swarm already: run podman-swarm reset --yes first, or use another --data-dir", h.cfg.Join, h.cfg.DataDir)
	case h.cfg.Join != "":
		if err := firstOnly(h.cfg.EncryptionKey, h.services); err != nil {
			return nil, err
		}
		if err := h.joinSwarm(ctx); err != nil {
			return nil, err
		}
	}
	keys, err := h.openKeys()
	if err != nil {
		return nil, err
	}
	if h.known {
		return keys, nil
	}
	h.me.m.Cluster, h.me.m.Name = keys.Cluster(), h.cfg.NodeName
	h.me.m.PodCIDR, h.me.m.ServiceCIDR = h.cfg.PodCIDR, h.cfg.ServiceCIDR
	if err := h.me.m.Save(h.me.file); err != nil {
		return nil, err
	}
	if interrupted || h.cfg.Join != "" {
		if err := h.dir.Joined(); err != nil {
			return nil, err
		}
	}
	return keys, nil
}

// firstOnly refuses what is said once for a whole swarm, by its first node.
func firstOnly(encryptionKey, services string) error {
	const why = "only the first node of a swarm may be given one; this one is told the swarm's when it joins: leave the flag out"
	switch {
	case encryptionKey != "":
		return fmt.Errorf("--encryption-key %s: %s", encryptionKey, why)
	case services != "":
		return fmt.Errorf("--service-cidr %s: %s", services, why)
	}
	return nil
}

// openKeys opens this node's keys. The first of the gossip of a swarm that begins may be given.
func (h *host) openKeys() (*pki.Authority, error) {
	if h.known || h.cfg.EncryptionKey == "" {
		return pki.Open(h.dir.File("pki"))
	}
	key, err := given.GossipKey(h.cfg.EncryptionKey)
	if err != nil {
		return nil, err
	}
	return pki.Begin(h.dir.File("pki"), key)
}

func exists(path string) bool {
	_, err := os.Lstat(path)
	return err == nil
}

// joinSwarm asks a node of the swarm to be admitted. After a refusal nothing is left of the try.
func (h *host) joinSwarm(ctx context.Context) error {
	if h.cfg.JoinToken == "" {
		return fmt.Errorf("--join %s needs --join-token: on a node of that swarm run: podman-swarm token create", h.cfg.Join)
	}
	try, begun, err := h.dir.Join(h.cfg.NodeName)
	if err != nil {
		return err
	}
	// What an interrupted try left there is made anew, for the same key.
	if err := os.RemoveAll(h.dir.File("pki")); err != nil {
		return fmt.Errorf("join: %w", err)
	}
	reached := false
	dial := func(ctx context.Context, addr string, verify func([]*x509.Certificate) error) (net.Conn, error) {
		conn, err := wire.DialGuest(ctx, addr, peers.JoinProto, verify)
		reached = reached || err == nil
		return conn, err
	}
	admission, err := join.Join(ctx, join.Newcomer{
		Token: h.cfg.JoinToken, Nodes: []string{joinAddr(h.cfg.Join)}, Dial: dial, Dir: h.dir.File("pki"),
		Name: h.cfg.NodeName, Address: h.cfg.wireAddr(), PodCIDR: h.wish, Release: version.Swarm(), Format: swarmFormat, Key: try.Key,
	})
	if err != nil {
		// The key is worth keeping while some node may have written it down: now, or in a try before.
		if refused := errors.As(err, new(*join.Refusal)); reached && refused || !reached && begun {
			err = errors.Join(err, h.dir.Joined())
		}
		return err
	}
	h.cfg.PodCIDR, h.cfg.ServiceCIDR = admission.PodCIDR.String(), admission.ServiceRange.String()
	h.me.m.Lineage, h.me.m.Peers = admission.Lineage, admission.Peers
	h.log.Info("admitted to the swarm", "cluster", admission.Cluster, "by", h.cfg.Join, "podCIDR", h.cfg.PodCIDR)
	return nil
}

// whole refuses a data directory that restore has begun to fill: it is neither empty nor a node's.
func (h *host) whole() error {
	if !h.dir.Unfinished() {
		return nil
	}
	return fmt.Errorf("%s: %w: run podman-swarm restore again, or podman-swarm reset --yes to give it up", h.cfg.DataDir, errHalf)
}

// recall fills in what this data directory already is. One that is not whole is nothing yet.
func (h *host) recall() error {
	file := h.dir.File(datadir.MemberFile)
	var m datadir.Membership
	var known bool
	if !h.dir.Unfinished() {
		var err error
		if m, known, err = datadir.LoadMembership(file); err != nil {
			return err
		}
	}
	h.me, h.known = &self{file: file, m: m}, known
	if known {
		var err error
		h.cfg, err = agrees(m, h.cfg)
		return err
	}
	if h.cfg.PodCIDR != "" {
		h.wish = netip.MustParsePrefix(h.cfg.PodCIDR)
	} else {
		h.cfg.PodCIDR = firstPodCIDR
	}
	if h.services = h.cfg.ServiceCIDR; h.services == "" {
		h.cfg.ServiceCIDR = firstServiceCIDR
	}
	return nil
}
