package show

import (
	"strconv"
	"time"

	"github.com/podman-swarm/podman-swarm/internal/swarm"
)

// Node is a node as Kubernetes and as the swarm see it; either may not know it.
type Node struct {
	Name    string        `json:"name"`
	Status  string        `json:"status,omitempty"` // empty: no Node object
	Version string        `json:"version,omitempty"`
	PodCIDR string        `json:"podCIDR,omitempty"`
	OS      string        `json:"os,omitempty"`
	Created time.Time     `json:"created,omitzero"`
	Member  *swarm.Member `json:"member,omitempty"` // nil: no member
}

// Nodes prints a table of nodes.
func (p *Printer) Nodes(nodes []Node) error {
	of := func(f func(swarm.Member) string) func(Node) string {
		return func(n Node) string {
			if n.Member == nil {
				return ""
			}
			return f(*n.Member)
		}
	}
	return list(p, nodes, "No nodes found.", []column[Node]{
		{"NAME", false, func(n Node) string { return n.Name }},
		{"STATUS", false, func(n Node) string { return n.Status }},
		{"STATE", false, of(state)},
		{"ROLE", false, of(func(m swarm.Member) string { return m.Role })},
		{"AGE", false, func(n Node) string { return p.age(n.Created) }},
		{"VERSION", false, func(n Node) string { return n.Version }},
		{"RELEASE", false, of(func(m swarm.Member) string { return m.Release })},
		{"ADDRESS", false, of(func(m swarm.Member) string { return m.Address })},
		{"API", true, of(func(m swarm.Member) string { return m.APIAddress })},
		{"LAG", true, of(func(m swarm.Member) string { return strconv.FormatUint(m.Lag, 10) })},
		{"POD-CIDR", true, func(n Node) string { return n.PodCIDR }},
		{"OS-IMAGE", true, func(n Node) string { return n.OS }},
	})
}
