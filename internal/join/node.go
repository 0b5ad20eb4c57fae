package join

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"net/netip"
	"time"

	"github.com/podman-swarm/podman-swarm/internal/state"
)

const (
	// NodesPrefix is where the records of nodes are.
	NodesPrefix = "/swarm/nodes/"
	// nodeBits is the size of a node's pod range.
	nodeBits = 24
	// reservation is how long an unconfirmed record lives, in seconds: longer than an exchange.
	reservation = 90
)

// Node is what the cluster knows of a node for good. One that is not Confirmed is a newcomer that
// may yet go away: it is no node.
type Node struct {
	Name      string       `json:"name"`
	PodCIDR   netip.Prefix `json:"podCIDR"`
	Admitted  time.Time    `json:"admitted"`
	Address   string       `json:"address"` // for other nodes, host:port
	Key       string       `json:"key"`     // names the key of its certificate request
	Token     string       `json:"token,omitempty"`
	Confirmed bool         `json:"confirmed"`
}

// Nodes returns the nodes in v, by name.
func Nodes(v state.View) []Node {
	var nodes []Node
	for _, r := range records(v) {
		if r.Confirmed {
			nodes = append(nodes, r.Node)
		}
	}
	return nodes
}

// record is a Node as it is stored.
type record struct {
	Node
	created, modified uint64
}

func records(v state.View) []record {
	var list []record
	v.Ascend(NodesPrefix, after(NodesPrefix), func(e *state.Entry) bool {
		if r, err := decodeNode(e); err == nil {
			list = append(list, r)
		}
		return true
	})
	return list
}

func decodeNode(e *state.Entry) (record, error) {
	r := record{created: e.CreateRevision, modified: e.ModRevision}
	err := json.Unmarshal(e.Value, &r.Node)
	return r, err
}

// KeyID names a public key, given as SubjectPublicKeyInfo.
func KeyID(spki []byte) string {
	sum := sha256.Sum256(spki)
	return hex.EncodeToString(sum[:])
}

// registry keeps the records of nodes.
type registry struct {
	store Store
	pods  netip.Prefix // the cluster's range, which nodes get parts of
}

// claim is what a newcomer asks for.
type claim struct {
	Node
	wish netip.Prefix // invalid: the lowest free range
	// outside allows a wish that is not within the cluster's range.
	outside bool
	// judge looks at the record after it was written, in a view that has all that came before it.
	judge func(v state.View, r record) *Refusal
}

// reserve writes an unconfirmed record for a newcomer. The record that one with the same name and
// key left is taken up; when that is confirmed, it is returned as it is.
func (g *registry) reserve(ctx context.Context, c claim) (record, error) {
	n := c.Node
	for {
		if err := g.store.Barrier(ctx); err != nil {
			return record{}, err
		}
		v := g.store.View()
		w := state.Write{Key: NodesPrefix + n.Name, TTL: reservation}
		if e, ok := v.Get(w.Key); ok {
			old, err := decodeNode(e)
			if err != nil {
				return record{}, fmt.Errorf("record of node %s is damaged: %w; delete the node and join again", n.Name, err)
			}
			if old.Key != n.Key || n.Key == "" {
				return record{}, taken(old)
			}
			if old.Confirmed {
				return old, nil
			}
			if old.Token != n.Token { // its place in the row for this token is the last
				if err := g.remove(ctx, old); err != nil {
					return record{}, err
				}
				continue
			}
			n.PodCIDR, w.Expect = old.PodCIDR, e.ModRevision
		} else {
			var refusal *Refusal
			if n.PodCIDR, refusal = g.free(v, c); refusal != nil {
				return record{}, refusal
			}
		}
		r, err := g.write(ctx, n, w)
		if errors.Is(err, state.ErrConflict) {
			continue // somebody wrote the same record
		}
		if err != nil {
			return record{}, err
		}
		// This view has every record that was created before ours, whoever wrote it.
		v = g.store.View()
		if g.contested(v, r) {
			if err := g.remove(ctx, r); err != nil {
				return record{}, err
			}
			continue
		}
		if c.judge != nil {
			if refusal := c.judge(v, r); refusal != nil {
				return record{}, errors.Join(refusal, g.remove(ctx, r))
			}
		}
		return r, nil
	}
}

func taken(old record) *Refusal {
	if !old.Confirmed {
		return refuse(NameTaken, "a node %s is joining at this moment; if that was an earlier try of this machine, try again in %d seconds", old.Name, reservation)
	}
	return refuse(NameTaken, "the cluster has a node %s since %s; choose another name, or remove that node first if it is gone for good",
		old.Name, old.Admitted.Format(time.RFC3339))
}

// write stores n. The store's revisions of it come back in the record.
func (g *registry) write(ctx context.Context, n Node, w state.Write) (record, error) {
	data, err := json.Marshal(n)
	if err != nil {
		return record{}, fmt.Errorf("write node %s: %w", n.Name, err)
	}
	w.Value = data
	res, err := g.store.Apply(ctx, w)
	if err != nil {
		return record{}, err
	}
	return record{Node: n, created: res.Entry.CreateRevision, modified: res.Entry.ModRevision}, nil
}

// contested tells whether another node was given the range of r, or a part of it, before r was
// created. Of any two records one sees the other, so no two keep the same range.
func (g *registry) contested(v state.View, r record) bool {
	for _, other := range records(v) {
		if other.Name != r.Name && other.created < r.created && other.PodCIDR.Overlaps(r.PodCIDR) {
			return true
		}
	}
	return false
}

// pending counts the newcomers that came before r with the same token and have not confirmed.
func pending(v state.View, r record) int {
	n := 0
	for _, other := range records(v) {
		if other.Name != r.Name && !other.Confirmed && other.Token == r.Token && other.created < r.created {
			n++
		}
	}
	return n
}

// free returns the range that was wished for or, without a wish, the lowest that no node has.
func (g *registry) free(v state.View, c claim) (netip.Prefix, *Refusal) {
	all, wish := records(v), c.wish
	holder := func(p netip.Prefix) string {
		for _, r := range all {
			if r.PodCIDR.Overlaps(p) {
				return r.Name
			}
		}
		return ""
	}
	if wish.IsValid() {
		if !c.outside && (!g.pods.Contains(wish.Addr()) || wish.Bits() < g.pods.Bits()) {
			return wish, refuse(NoRange, "pod range %s is not within the cluster's %s; choose one that is, or none", wish, g.pods)
		}
		if name := holder(wish); name != "" {
			return wish, refuse(NoRange, "pod range %s is node %s's; choose another, or none", wish, name)
		}
		return wish, nil
	}
	for p, ok := netip.PrefixFrom(g.pods.Addr(), nodeBits), true; ok && g.pods.Contains(p.Addr()); p, ok = following(p) {
		if holder(p) == "" {
			return p, nil
		}
	}
	return netip.Prefix{}, refuse(NoRange, "no /%d of %s is free for another node; remove nodes that are gone", nodeBits, g.pods)
}

// following returns the range behind p.
func following(p netip.Prefix) (netip.Prefix, bool) {
	a := p.Addr().As4()
	n := uint64(a[0])<<24 | uint64(a[1])<<16 | uint64(a[2])<<8 | uint64(a[3])
	n += 1 << (32 - p.Bits())
	if n > 1<<32-1 {
		return p, false
	}
	return netip.PrefixFrom(netip.AddrFrom4([4]byte{byte(n >> 24), byte(n >> 16), byte(n >> 8), byte(n)}), p.Bits()), true //nolint:gosec // the four bytes of n
}

// stands tells whether r is still as it was written.
func (g *registry) stands(v state.View, r record) bool {
	e, ok := v.Get(NodesPrefix + r.Name)
	return ok && e.ModRevision == r.modified
}

// confirm makes the record permanent.
// renew writes a node's address and key into its confirmed record, if there is one and they changed.
func (g *registry) renew(ctx context.Context, n Node) error {
	for {
		if err := g.store.Barrier(ctx); err != nil {
			return err
		}
		e, ok := g.store.View().Get(NodesPrefix + n.Name)
		if !ok {
			return nil
		}
		old, err := decodeNode(e)
		if err != nil || !old.Confirmed || old.Address == n.Address && old.Key == n.Key {
			return nil //nolint:nilerr // reserve says what is wrong with it
		}
		now := old.Node
		now.Address, now.Key = n.Address, n.Key
		if _, err := g.write(ctx, now, state.Write{Key: NodesPrefix + n.Name, Expect: e.ModRevision}); !errors.Is(err, state.ErrConflict) {
			return err
		}
	}
}

func (g *registry) confirm(ctx context.Context, r record) error {
	n := r.Node
	n.Confirmed = true
	_, err := g.write(ctx, n, state.Write{Key: NodesPrefix + n.Name, Expect: r.modified})
	return err
}

// remove takes an unconfirmed record away again, unless somebody has written it since.
func (g *registry) remove(ctx context.Context, r record) error {
	_, err := g.store.Apply(ctx, state.Write{Key: NodesPrefix + r.Name, Delete: true, Expect: r.modified})
	if errors.Is(err, state.ErrConflict) {
		return nil
	}
	return err
}
