package drill

import (
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/podman-swarm/podman-swarm/internal/swarm"
)

func member(name, role, state string) swarm.Member {
	return swarm.Member{Name: name, Role: role, State: state, Address: name + ":7946"}
}

// podOf is a running pod of "KIND NAME", or of nobody.
func podOf(name, node, owner string) *corev1.Pod {
	p := &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: name, UID: types.UID(name)},
		Spec:       corev1.PodSpec{NodeName: node, Containers: []corev1.Container{{Name: "c", Image: "x"}}},
		Status: corev1.PodStatus{
			Phase: corev1.PodRunning, Conditions: []corev1.PodCondition{{Type: corev1.PodReady, Status: corev1.ConditionTrue}},
		},
	}
	if kind, of, ok := strings.Cut(owner, " "); ok {
		yes := true
		p.OwnerReferences = []metav1.OwnerReference{{Kind: kind, Name: of, UID: types.UID(of), Controller: &yes}}
	}
	return p
}

func tolerating(p *corev1.Pod, seconds int64) *corev1.Pod {
	t := corev1.Toleration{Key: corev1.TaintNodeUnreachable, Operator: corev1.TolerationOpExists, Effect: corev1.TaintEffectNoExecute}
	if seconds >= 0 {
		t.TolerationSeconds = &seconds
	}
	p.Spec.Tolerations = append(p.Spec.Tolerations, t)
	return p
}

func node(name string, ready, schedulable bool) *corev1.Node {
	n := &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: name}, Spec: corev1.NodeSpec{Unschedulable: !schedulable}}
	status := corev1.ConditionFalse
	if ready {
		status = corev1.ConditionTrue
	}
	n.Status.Conditions = []corev1.NodeCondition{{Type: corev1.NodeReady, Status: status}}
	return n
}

func three(pods ...*corev1.Pod) stage {
	return stage{
		self: "n1", pause: 30 * time.Second, pods: pods, sets: map[types.UID]int32{"web": 2},
		members: []swarm.Member{member("n1", swarm.RoleLeader, swarm.StateAlive), member("n2", swarm.RoleVoter, swarm.StateAlive), member("n3", swarm.RoleVoter, swarm.StateAlive)},
		nodes:   []*corev1.Node{node("n1", true, true), node("n2", true, true), node("n3", true, true)},
	}
}

func TestPlan(t *testing.T) {
	ended := podOf("ended", "n2", "")
	ended.Status.Phase = corev1.PodSucceeded
	s := three(
		tolerating(podOf("web-1", "n2", "ReplicaSet web"), 1), podOf("web-2", "n3", "ReplicaSet web"), podOf("sick", "n2", "ReplicaSet sick"),
		podOf("db-0", "n2", "StatefulSet db"), podOf("every", "n2", "DaemonSet every"), podOf("run", "n2", "Job run"), podOf("lone", "n2", ""),
		tolerating(podOf("slow", "n2", "ReplicaSet web"), 300), tolerating(podOf("rock", "n2", ""), -1), ended,
	)
	p, err := s.choose("n2")
	if err != nil {
		t.Fatal(err)
	}
	want := []string{
		"the agent of n2 is killed without a good-bye and its pods with it, and it is started again 30s later",
		"1 pods of 1 ReplicaSets are replaced on other nodes, which is timed",
		"default/lone has no controller: it is deleted, and the drill makes it again afterwards",
		"default/sick is of ReplicaSet sick, which is not ready now: its replacement is not timed",
		"default/db-0 is of StatefulSet db and must not run twice: it is away until the node is back",
		"default/run is replaced as Job run sees fit, and not timed",
		"default/slow tolerates the loss of its node for 5m0s: it is away until the node is back",
		"default/rock tolerates the loss of its node: it is away until the node is back",
	}
	if diff := cmp.Diff(want, p.sentences()); diff != "" {
		t.Errorf("plan (-want +got):\n%s", diff)
	}
	if diff := cmp.Diff(map[types.UID]string{"web": "default/web"}, p.sets()); diff != "" {
		t.Error(diff)
	}
}

func TestChoice(t *testing.T) {
	for name, tt := range map[string]struct {
		pods []*corev1.Pod
		want string
	}{
		"nothing runs":              {nil, "n2"},
		"where pods are replaced":   {[]*corev1.Pod{podOf("web-1", "n3", "ReplicaSet web")}, "n3"},
		"not where one is bare":     {[]*corev1.Pod{podOf("web-1", "n2", "ReplicaSet web"), podOf("lone", "n2", ""), podOf("web-2", "n3", "ReplicaSet web")}, "n3"},
		"where more are replaced":   {[]*corev1.Pod{podOf("a", "n2", "ReplicaSet web"), podOf("b", "n3", "ReplicaSet web"), podOf("c", "n3", "ReplicaSet web")}, "n3"},
		"never itself":              {[]*corev1.Pod{podOf("a", "n1", "ReplicaSet web")}, "n2"},
		"better some than no pods":  {[]*corev1.Pod{podOf("a", "n3", "ReplicaSet web"), podOf("db", "n3", "StatefulSet db")}, "n3"},
		"what ended does not count": {[]*corev1.Pod{podOf("a", "n3", "ReplicaSet web")}, "n3"},
	} {
		t.Run(name, func(t *testing.T) {
			if p, err := three(tt.pods...).choose(""); err != nil || p.node.Name != tt.want {
				t.Errorf("chose %q, %v, want %s", p.node.Name, err, tt.want)
			}
		})
	}
	s := three()
	s.self = "n3"
	if p, err := s.choose(""); err != nil || p.node.Name != "n2" {
		t.Errorf("chose %q, %v, want n2: n1 leads", p.node.Name, err)
	}
	if p, err := s.choose("n1"); err != nil || !strings.Contains(strings.Join(p.sentences(), "\n"), "n1 leads: another node takes the lead") {
		t.Errorf("the leader's plan: %q, %v", p.sentences(), err)
	}
}

func TestRefusals(t *testing.T) {
	alone := three()
	alone.members = alone.members[:1]
	lossy := three()
	lossy.members[2].State = swarm.StateDead
	frozen := three()
	frozen.members, frozen.freeze = frozen.members[:2], true
	full := three(podOf("web-1", "n2", "ReplicaSet web"))
	full.nodes = []*corev1.Node{node("n1", true, false), node("n2", true, true), node("n3", false, true)}
	for name, tt := range map[string]struct {
		s          stage
		node, want string
	}{
		"itself":        {three(), "n1", "node n1 cannot watch its own loss: ask another node (psctl --server), or name another"},
		"unknown":       {three(), "n9", `there is no node "n9": see psctl swarm members`},
		"dead":          {lossy, "n3", "node n3 is dead already: there is nothing to rehearse"},
		"quorum":        {lossy, "n2", "without node n2, 1 of 3 votes are left and writes would stop: bring the other nodes back first"},
		"any":           {lossy, "", "without node n2, 1 of 3 votes are left and writes would stop: bring the other nodes back first"},
		"alone":         {alone, "", "no other node is alive: a drill needs one that plays dead and one that watches"},
		"frozen":        {frozen, "n2", "without node n2, 1 of 2 votes are left and writes would stop: bring the other nodes back first"},
		"nowhere to go": {full, "n2", "no other node takes pods: nothing of node n2 could be replaced"},
	} {
		t.Run(name, func(t *testing.T) {
			if p, err := tt.s.choose(tt.node); err == nil || err.Error() != tt.want {
				t.Errorf("%+v, %v\nwant %s", p, err, tt.want)
			}
		})
	}
}

func TestTwoNodesRehearseTheTakeover(t *testing.T) {
	s := three()
	s.members = s.members[:2]
	p, err := s.choose("")
	if err != nil || !p.takeover || !strings.Contains(strings.Join(p.sentences(), "\n"), "of the two nodes one is left: it takes the swarm over") {
		t.Errorf("%q, %v", p.sentences(), err)
	}
}

// A node that does not vote costs no quorum, whoever else is away.
func TestReplicasMayAlwaysBeLost(t *testing.T) {
	s := three()
	s.members = append(s.members, member("n4", swarm.RoleReplica, swarm.StateAlive))
	s.members[2].State = swarm.StateDead
	if _, err := s.choose("n4"); err != nil {
		t.Error(err)
	}
}
