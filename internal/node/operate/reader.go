package operate

import (
	"cmp"
	"context"
	"slices"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/podman-swarm/podman-swarm/internal/control/liveness"
	"github.com/podman-swarm/podman-swarm/internal/join"
	"github.com/podman-swarm/podman-swarm/internal/node/operate/overwrite"
	"github.com/podman-swarm/podman-swarm/internal/node/peers"
	"github.com/podman-swarm/podman-swarm/internal/pki"
	"github.com/podman-swarm/podman-swarm/internal/state"
	"github.com/podman-swarm/podman-swarm/internal/state/machine"
	"github.com/podman-swarm/podman-swarm/internal/swarm"
)

// reader tells how the swarm is, as this node sees it.
type reader struct {
	Config
	derived *overwrite.Derived
}

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
	out.Health = out.Quorum.Words() + r.rotating()
	view := r.Store.View()
	for c, err := range machine.Conflicts(view) {
		if err == nil && undone(view, c.ID).IsZero() && !r.derived.Is(c) {
			out.Conflicts++
		}
	}
	return out, nil
}

// rotating tells of rotations that are under way: nobody may be there any more who finishes them.
func (r reader) rotating() string {
	var words string
	if r.Keys.CAPhase() != pki.Steady {
		words += "; the certificate authority is being replaced: unless podman-swarm rotate-ca runs, run it again"
	}
	if r.Keys.GossipPhase() != pki.Steady {
		words += "; the gossip key is being replaced: unless podman-swarm rotate-gossip-key runs, run it again"
	}
	return words
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
	// A node that this one has not heard of since it started: it never ran, or it has an object and is dead.
	for _, n := range join.Nodes(r.Store.View()) {
		if _, ok := byName[n.Name]; !ok {
			byName[n.Name] = swarm.Member{Name: n.Name, Address: n.Address, State: swarm.StateJoining, Since: n.Admitted.UTC()}
		}
	}
	for _, n := range r.objects(ctx) {
		m, ok := byName[n.Name]
		switch {
		case !ok: // a restored swarm has the objects of nodes that have not joined it again
			m = swarm.Member{Name: n.Name, State: swarm.StateDead, Since: n.CreationTimestamp.UTC()}
		case m.State == swarm.StateJoining:
			m.State = swarm.StateDead
		}
		m.Fenced = n.Annotations[liveness.FencedAnnotation] == "true"
		byName[n.Name] = m
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

// objectsTimeout bounds the look at the Node objects: status must answer when the API does not.
const objectsTimeout = 2 * time.Second

// objects are the Node objects; none when the API does not answer.
func (r reader) objects(ctx context.Context) []corev1.Node {
	ctx, cancel := context.WithTimeout(ctx, objectsTimeout)
	defer cancel()
	list, err := r.Client.CoreV1().Nodes().List(ctx, metav1.ListOptions{ResourceVersion: "0"})
	if err != nil {
		return nil
	}
	return list.Items
}
