package drill

import (
	"cmp"
	"fmt"
	"slices"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/podman-swarm/podman-swarm/internal/swarm"
)

const (
	// usualPause is how long a node plays dead.
	usualPause = 30 * time.Second
	// prompt is the longest toleration of a lost node with which a pod counts as replaced at once.
	prompt = 5 * time.Second
)

// stage is what a drill is planned on.
type stage struct {
	self    string
	pause   time.Duration
	freeze  bool
	members []swarm.Member
	nodes   []*corev1.Node
	pods    []*corev1.Pod
	// sets are the ReplicaSets that have all their pods ready.
	sets map[types.UID]int32 // to how many there are
}

// plan is what a drill of a node is going to do.
type plan struct {
	node     swarm.Member
	pause    time.Duration
	takeover bool
	replaced []*corev1.Pod // other nodes run them soon: what is timed
	bare     []*corev1.Pod // nobody would make them again
	others   []string      // sentences about the rest
}

// choose plans the loss of a node; without a name it chooses one.
func (s stage) choose(name string) (plan, error) {
	if name != "" {
		return s.planOf(name)
	}
	var best *plan
	var why error
	for _, m := range s.members {
		if m.Name == s.self || m.State != swarm.StateAlive {
			continue
		}
		p, err := s.planOf(m.Name)
		if err != nil {
			why = cmp.Or(why, err)
			continue
		}
		if best == nil || p.better(*best) {
			best = &p
		}
	}
	switch {
	case best != nil:
		return *best, nil
	case why != nil:
		return plan{}, why
	}
	return plan{}, swarm.Refused("no other node is alive: a drill needs one that plays dead and one that watches")
}

// better prefers nodes with much to measure and little to disturb.
func (p plan) better(o plan) bool {
	yes := func(b bool) int {
		if b {
			return 1
		}
		return 0
	}
	return cmp.Or(
		cmp.Compare(yes(len(p.replaced) > 0), yes(len(o.replaced) > 0)),
		cmp.Compare(len(o.bare)+len(o.others), len(p.bare)+len(p.others)),
		cmp.Compare(yes(o.node.Role == swarm.RoleLeader), yes(p.node.Role == swarm.RoleLeader)),
		cmp.Compare(len(p.replaced), len(o.replaced)),
	) > 0
}

func (s stage) planOf(name string) (plan, error) {
	i := slices.IndexFunc(s.members, func(m swarm.Member) bool { return m.Name == name })
	switch {
	case i < 0:
		return plan{}, swarm.NotFound("there is no node %q: see psctl swarm members", name)
	case name == s.self:
		return plan{}, swarm.Refused("node %s cannot watch its own loss: ask another node (psctl --server), or name another", name)
	case s.members[i].State != swarm.StateAlive:
		return plan{}, swarm.Refused("node %s is %s already: there is nothing to rehearse", name, s.members[i].State)
	}
	p := plan{node: s.members[i], pause: s.pause}
	var err error
	if p.takeover, err = s.votes(name); err != nil {
		return plan{}, err
	}
	for _, pod := range s.pods {
		if pod.Spec.NodeName == name && pod.DeletionTimestamp == nil && pod.Status.Phase != corev1.PodSucceeded && pod.Status.Phase != corev1.PodFailed {
			s.judge(&p, pod)
		}
	}
	if len(p.replaced) > 0 && !slices.ContainsFunc(s.nodes, func(n *corev1.Node) bool { return n.Name != name && takesPods(n) }) {
		return plan{}, swarm.Refused("no other node takes pods: nothing of node %s could be replaced", name)
	}
	return p, nil
}

// votes refuses a loss after which nobody could write. Of two nodes the one that is left takes over: that is
// worth rehearsing.
func (s stage) votes(name string) (takeover bool, err error) {
	voters, left := 0, 0
	for _, m := range s.members {
		if m.Role != swarm.RoleLeader && m.Role != swarm.RoleVoter {
			continue
		}
		voters++
		if m.State == swarm.StateAlive && m.Name != name {
			left++
		}
	}
	switch {
	case voters > 0 && 2*left > voters:
		return false, nil
	case len(s.members) == 2 && left == 1 && !s.freeze:
		return true, nil
	}
	return false, swarm.Refused("without node %s, %d of %d votes are left and writes would stop: bring the other nodes back first", name, left, voters)
}

// judge says what becomes of a pod whose node is lost.
func (s stage) judge(p *plan, pod *corev1.Pod) {
	say := func(format string, args ...any) {
		p.others = append(p.others, fmt.Sprintf("%s/%s ", pod.Namespace, pod.Name)+fmt.Sprintf(format, args...))
	}
	owner := metav1.GetControllerOf(pod)
	wait, endless := patience(pod)
	switch {
	case owner != nil && owner.Kind == "DaemonSet": // starts again there
	case endless:
		say("tolerates the loss of its node: it is away until the node is back")
	case wait > prompt:
		say("tolerates the loss of its node for %s: it is away until the node is back", wait)
	case owner == nil:
		p.bare = append(p.bare, pod)
	case owner.Kind == "ReplicaSet":
		if _, ready := s.sets[owner.UID]; !ready {
			say("is of ReplicaSet %s, which is not ready now: its replacement is not timed", owner.Name)
			return
		}
		p.replaced = append(p.replaced, pod)
	case owner.Kind == "StatefulSet":
		say("is of StatefulSet %s and must not run twice: it is away until the node is back", owner.Name)
	default:
		say("is replaced as %s %s sees fit, and not timed", owner.Kind, owner.Name)
	}
}

// patience is how long a pod stays bound to a node that is unreachable.
func patience(pod *corev1.Pod) (wait time.Duration, endless bool) {
	for _, t := range pod.Spec.Tolerations {
		if t.Key != corev1.TaintNodeUnreachable && t.Key != "" || t.Effect != corev1.TaintEffectNoExecute && t.Effect != "" {
			continue
		}
		if t.TolerationSeconds == nil {
			return 0, true
		}
		wait = max(wait, time.Duration(*t.TolerationSeconds)*time.Second)
	}
	return wait, false
}

func takesPods(n *corev1.Node) bool { return !n.Spec.Unschedulable && isReady(n) }

func isReady(n *corev1.Node) bool {
	for _, c := range n.Status.Conditions {
		if c.Type == corev1.NodeReady {
			return c.Status == corev1.ConditionTrue
		}
	}
	return false
}

// sentences are the plan for people.
func (p plan) sentences() []string {
	out := []string{fmt.Sprintf("the agent of %s is killed without a good-bye and its pods with it, and it is started again %s later", p.node.Name, p.pause)}
	if p.node.Role == swarm.RoleLeader {
		out = append(out, fmt.Sprintf("%s leads: another node takes the lead", p.node.Name))
	}
	if p.takeover {
		out = append(out, fmt.Sprintf("of the two nodes one is left: it takes the swarm over after some seconds without writes, and %s joins it again", p.node.Name))
	}
	if n := len(p.replaced); n > 0 {
		out = append(out, fmt.Sprintf("%d pods of %d ReplicaSets are replaced on other nodes, which is timed", n, len(p.sets())))
	}
	for _, pod := range p.bare {
		out = append(out, fmt.Sprintf("%s/%s has no controller: it is deleted, and the drill makes it again afterwards", pod.Namespace, pod.Name))
	}
	return append(out, p.others...)
}

// sets are the ReplicaSets that lose pods.
func (p plan) sets() map[types.UID]string {
	out := map[types.UID]string{}
	for _, pod := range p.replaced {
		owner := metav1.GetControllerOf(pod)
		out[owner.UID] = pod.Namespace + "/" + owner.Name
	}
	return out
}
