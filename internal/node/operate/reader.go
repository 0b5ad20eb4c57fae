package operate

import (
	"cmp"
	"context"
	"slices"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/podman-swarm/podman-swarm/internal/join"
	"github.com/podman-swarm/podman-swarm/internal/node/peers"
	"github.com/podman-swarm/podman-swarm/internal/state"
	"github.com/podman-swarm/podman-swarm/internal/state/machine"
	"github.com/podman-swarm/podman-swarm/internal/swarm"
)

// reader tells how the swarm is, as this node sees it.
type reader struct{ Config }

// Status implements swarm.Reader. It never waits for a leader: it is what one asks when there is none.
func (r reader) Status(ctx context.Context) (swarm.Status, error) {
	st := r.Store.Status()
	members, err := r.members(ctx, st)
	if err != nil {
		return swarm.Status{}, err
	}
	out := swarm.Status{
		ClusterID: r.Keys.Cluster(), Node: r.Node, Leader: leaderOf(st, members), Revision: st.Revision,
		Lineage: lineage(st.Lineage), Members: members, Quorum: swarm.Quorum{Leader: st.Leader != "", Freeze: r.Freeze},
	}
	for _, m := range members {
		if m.Role == swarm.RoleLeader || m.Role == swarm.RoleVoter {
			out.Quorum.Voters++
			if m.State == swarm.StateAlive {
				out.Quorum.Alive++
			}
		}
	}
	view := r.Store.View()
	for c, err := range machine.Conflicts(view) {
		if err == nil && undone(view, c.ID).IsZero() {
			out.Conflicts++
		}
	}
	return out, nil
}

// Members implements swarm.Reader.
func (r reader) Members(ctx context.Context) ([]swarm.Member, error) {
	return r.members(ctx, r.Store.Status())
}

func leaderOf(st state.Status, members []swarm.Member) string {
	for _, m := range members {
		if m.Role == swarm.RoleLeader {
			return m.Name
		}
	}
	return st.Leader
}

func lineage(l state.Lineage) swarm.Lineage {
	out := swarm.Lineage{ID: l.ID, Born: l.Born.Time().UTC()}
	for _, p := range l.Parents {
		out.Parents = append(out.Parents, swarm.Ancestor{ID: p.ID, Time: p.Stamp.Time().UTC(), Revision: p.Revision})
	}
	return out
}

func (r reader) members(ctx context.Context, st state.Status) ([]swarm.Member, error) {
	heard := map[string]peers.Words{}
	peers.AskAll(ctx, r.Peers, "words", "", func(m peers.Member, w peers.Words) { heard[m.Name] = w })
	var newest uint64
	for _, w := range heard {
		newest = max(newest, w.Index)
	}
	byName := map[string]swarm.Member{}
	for _, m := range r.Peers.Members() {
		out := swarm.Member{
			Name: m.Name, Address: m.Addr, APIAddress: m.Meta.API, State: m.State.String(), Since: m.Since.UTC(),
			Release: m.Meta.Release, Lineage: m.Meta.Standing.Lineage, Role: role(st, m),
		}
		if w, ok := heard[m.Name]; ok {
			out.Lag = newest - w.Index
		}
		byName[m.Name] = out
	}
	// A node that this one has not heard of since it started.
	for _, n := range join.Nodes(r.Store.View()) {
		if _, ok := byName[n.Name]; !ok {
			byName[n.Name] = swarm.Member{Name: n.Name, Address: n.Address, State: swarm.StateDead, Since: n.Admitted.UTC()}
		}
	}
	for name := range r.fenced(ctx) {
		if m, ok := byName[name]; ok {
			m.Fenced = true
			byName[name] = m
		}
	}
	out := make([]swarm.Member, 0, len(byName))
	for _, m := range byName {
		out = append(out, m)
	}
	slices.SortFunc(out, func(a, b swarm.Member) int { return cmp.Compare(a.Name, b.Name) })
	return out, nil
}

// role is what a member does in this node's lineage; "" in another one.
func role(st state.Status, m peers.Member) string {
	server := m.Meta.Standing.Server
	for _, replica := range st.Replicas {
		if replica.Server != server && replica.Addr != m.Addr {
			continue
		}
		switch {
		case replica.Server == st.Leader:
			return swarm.RoleLeader
		case replica.Votes:
			return swarm.RoleVoter
		}
		return swarm.RoleReplica
	}
	return ""
}

// fenceTimeout bounds the look at the Node objects: status must answer when the API does not.
const fenceTimeout = 2 * time.Second

// fenced are the nodes that somebody vouched are off.
func (r reader) fenced(ctx context.Context) map[string]bool {
	ctx, cancel := context.WithTimeout(ctx, fenceTimeout)
	defer cancel()
	out := map[string]bool{}
	list, err := r.Client.CoreV1().Nodes().List(ctx, metav1.ListOptions{ResourceVersion: "0"})
	if err != nil {
		return out
	}
	for i := range list.Items {
		if list.Items[i].Annotations[FenceAnnotation] == "true" {
			out[list.Items[i].Name] = true
		}
	}
	return out
}
