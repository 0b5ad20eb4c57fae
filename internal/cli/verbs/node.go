package verbs

import (
	"context"
	"fmt"
	"strings"

	"github.com/spf13/cobra"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/podman-swarm/podman-swarm/internal/cli/show"
	"github.com/podman-swarm/podman-swarm/internal/swarm"
)

// Node returns psctl node: our verbs, and kubectl's own about nodes beside them.
func Node(h Host, kubectl ...*cobra.Command) *cobra.Command {
	for _, c := range kubectl {
		c.Example = strings.ReplaceAll(c.Example, "kubectl ", "kubectl node ") // renamed with the rest of the tree
	}
	ls := h.listing("ls", "List nodes: what Kubernetes and what the swarm say of them", h.list)
	ls.Aliases = []string{"list"}
	cmd := parent("node", "Drain, fence or remove nodes", "Look after single nodes.", append([]*cobra.Command{
		ls,
		h.onNode("fence", "Vouch that a node is off, so that its volumes and StatefulSets move", fencing, (*swarm.Client).FenceNode, "fenced"),
		h.onNode("unfence", "Take a fence back", nil, (*swarm.Client).UnfenceNode, "no longer fenced"),
		h.onNode("rm", "Remove a node from the swarm for good", removing, (*swarm.Client).RemoveNode, "removed"),
	}, kubectl...)...)
	return cmd
}

// onNode is a command that does one thing to one node. What will happen is said by words; nil: not asked.
func (h Host) onNode(verb, short string, words func(swarm.Member) string, do func(*swarm.Client, context.Context, string) error, past string) *cobra.Command {
	person := h.person()
	cmd := &cobra.Command{
		Use: verb + " NODE", Short: short, Args: exactly("the name of a node (see psctl node ls)"),
		RunE: h.run(h.printer(), func(ctx context.Context, c *swarm.Client, args []string) error {
			m, err := member(ctx, c, args[0])
			if err != nil {
				return err
			}
			if words != nil {
				if err := person.Agree(words(m)); err != nil {
					return err
				}
			}
			if err := do(c, ctx, m.Name); err != nil {
				return err
			}
			return h.say("node/%s %s", m.Name, past)
		}),
	}
	if words != nil {
		cmd.Flags().BoolVar(&person.Yes, "yes", false, "Do not ask.")
	}
	return h.completing(cmd, memberNames)
}

func fencing(m swarm.Member) string {
	return fmt.Sprintf("You vouch that %s (%s) is off, or has lost its storage for good. Its StatefulSet pods and its pods with\n"+
		"ReadWriteOnce volumes will be started elsewhere; if it still runs them, two of each will write.", m.Name, m.State)
}

func removing(m swarm.Member) string {
	s := fmt.Sprintf("%s (%s) will be removed: its certificate is refused from now on, its Node object and its pods are deleted\n"+
		"and replaced elsewhere. It comes back only by joining with a new token; its data stays on its disk.", m.Name, m.State)
	if m.State == swarm.StateAlive {
		s += fmt.Sprintf("\nIt is alive: running podman-swarm leave on %s is the orderly way.", m.Name)
	}
	return s
}

// list joins the swarm's members with the Node objects.
func (h Host) list(ctx context.Context, c *swarm.Client, p *show.Printer, _ []string) error {
	members, err := c.Members(ctx)
	if err != nil {
		return err
	}
	kube, err := h.Kube()
	if err != nil {
		return err
	}
	nodes, err := kube.CoreV1().Nodes().List(ctx, metav1.ListOptions{})
	if err != nil {
		return fmt.Errorf("list nodes: %w", err)
	}
	return p.Nodes(join(members, nodes.Items))
}

func join(members []swarm.Member, nodes []corev1.Node) []show.Node {
	var all []show.Node
	at := map[string]int{}
	for _, m := range members {
		at[m.Name] = len(all)
		all = append(all, show.Node{Name: m.Name, Member: &m})
	}
	for _, n := range nodes {
		i, ok := at[n.Name]
		if !ok {
			i = len(all)
			all = append(all, show.Node{Name: n.Name})
		}
		all[i].Created, all[i].Version, all[i].PodCIDR = n.CreationTimestamp.Time, n.Status.NodeInfo.KubeletVersion, n.Spec.PodCIDR
		all[i].OS, all[i].Status = n.Status.NodeInfo.OSImage, readiness(n)
	}
	return all
}

// readiness is the STATUS that kubectl prints.
func readiness(n corev1.Node) string {
	s := "Unknown"
	for _, c := range n.Status.Conditions {
		if c.Type == corev1.NodeReady {
			s = map[corev1.ConditionStatus]string{corev1.ConditionTrue: "Ready", corev1.ConditionFalse: "NotReady", corev1.ConditionUnknown: "NotReady"}[c.Status]
		}
	}
	if n.Spec.Unschedulable {
		s += ",SchedulingDisabled"
	}
	return s
}
