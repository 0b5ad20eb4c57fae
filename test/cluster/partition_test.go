//go:build e2e

package cluster

import (
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	swarmv1 "github.com/podman-swarm/podman-swarm/internal/swarm"
	"github.com/podman-swarm/podman-swarm/test/lab"
)

// cutFor is how long the two sides do not hear of each other.
const cutFor = time.Minute

// twin is a ReplicaSet that both sides make.
const twin = `
apiVersion: apps/v1
kind: ReplicaSet
metadata: {name: twin, labels: {side: %s}}
spec:
  replicas: 2
  selector: {matchLabels: {app: twin}}
  template:
    metadata: {labels: {app: twin}}
    spec:
      terminationGracePeriodSeconds: 1
      containers: [{name: twin, image: "localhost/pause:1"}]
`

// address is a Service of one side; both sides ask for the same address.
const address = `
apiVersion: v1
kind: Service
metadata: {name: %s}
spec: {clusterIP: 10.43.0.77, selector: {app: twin}, ports: [{port: 80}]}
`

// side is one part of a swarm that was cut in two.
type side struct {
	name   string
	hosts  []*lab.Host
	own    *lab.Load // writes objects of its own
	shared *lab.Load // writes the same objects as the other side
}

// TestPartition cuts five nodes into three and two (ten into six and four), the leader among the fewer, for
// a minute: both sides are written to. When the wires are mended all are the same again, the newest of
// everything won, and what it overwrote is in the journal and can be brought back.
func TestPartition(t *testing.T) {
	n := nodes(t, 5)
	c := swarm(t, n)
	apply(t, c.Hosts[0], fmt.Sprintf(stateful, 3))
	eventually(t, time.Minute, func() error { return running(t.Context(), c.Hosts[0], "db", 3, c.Hosts) })
	for _, name := range []string{"newest-left", "newest-right", "deleted-right"} {
		set(t, c.Hosts[0], name, "before")
	}
	leader, err := c.Leader(t.Context(), c.Hosts[0])
	check(t, err)
	left := &side{name: "left", hosts: c.Except(leader)[:n*3/5]}
	right := &side{name: "right", hosts: c.Except(left.hosts...)}

	doubled := lab.Guard(ns)
	w := start(t)
	check(t, c.Partition(t.Context(), left.hosts, right.hosts))
	for _, s := range []*side{left, right} {
		s.own = startLoad(t, lab.LoadConfig{Hosts: s.hosts, Name: s.name, Writers: 3, Rate: 30})
		s.shared = startLoad(t, lab.LoadConfig{Hosts: s.hosts, Name: "both-" + s.name, Writers: 3, Rate: 30, Shared: true})
	}
	for _, s := range []*side{left, right} {
		for _, load := range []*lab.Load{s.own, s.shared} {
			acknowledged(t, load, 1)
			w.within(t, "the first write on the "+s.name+" side", load.Acks()[0].At.Sub(w.begun), 10*time.Second)
		}
	}
	for _, s := range []*side{left, right} {
		apply(t, s.hosts[0], fmt.Sprintf(twin, s.name))
		apply(t, s.hosts[0], fmt.Sprintf(address, "of-"+s.name))
	}
	set(t, left.hosts[1], "newest-right", "left")
	set(t, right.hosts[1], "newest-left", "right")
	set(t, left.hosts[1], "deleted-right", "left")
	pause(t, time.Second) // farther apart than the machines' clocks
	set(t, left.hosts[2], "newest-left", "left")
	set(t, right.hosts[0], "newest-right", "right")
	check(t, client(t, right.hosts[0]).CoreV1().ConfigMaps(ns).Delete(t.Context(), "deleted-right", metav1.DeleteOptions{}))
	pause(t, cutFor-time.Since(w.begun))
	labelUnseen(t, right.hosts[0], left.hosts[0])
	for _, s := range []*side{left, right} {
		s.own.Stop()
		s.shared.Stop()
	}

	w = start(t)
	check(t, c.Heal(t.Context()))
	identical(t, w, 10*time.Second, c.Hosts)
	merged(t, c, left, right)
	nothingTwice(t, c)
	for _, d := range doubled() {
		t.Errorf("while the swarm was cut: %s", d)
	}
}

// set writes a value into a ConfigMap.
func set(t *testing.T, h *lab.Host, name, value string) {
	t.Helper()
	eventually(t, 30*time.Second, func() error {
		maps := client(t, h).CoreV1().ConfigMaps(ns)
		cm := &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Name: name}, Data: map[string]string{"v": value}}
		_, err := maps.Update(t.Context(), cm, metav1.UpdateOptions{})
		if apierrors.IsNotFound(err) {
			_, err = maps.Create(t.Context(), cm, metav1.CreateOptions{})
		}
		return err
	})
}

// labelUnseen has the fewer write to a node of the others, when they have judged that it cannot be reached.
func labelUnseen(t *testing.T, from, unseen *lab.Host) {
	t.Helper()
	nodes := client(t, from).CoreV1().Nodes()
	eventually(t, 30*time.Second, func() error {
		node, err := nodes.Get(t.Context(), unseen.Name, metav1.GetOptions{})
		if err == nil && !slices.ContainsFunc(node.Status.Conditions, func(c corev1.NodeCondition) bool {
			return c.Type == corev1.NodeReady && c.Status == corev1.ConditionUnknown
		}) {
			err = fmt.Errorf("%s is not unreachable from %s", unseen.Name, from.Name)
		}
		return err
	})
	_, err := nodes.Patch(t.Context(), unseen.Name, types.MergePatchType, []byte(`{"metadata":{"labels":{"seen":"never"}}}`), metav1.PatchOptions{})
	check(t, err)
}

// nodesKnown checks that the side that saw a node had its way, and that the journal tells of nodes only where
// somebody's work was lost.
func nodesKnown(t *testing.T, journal []swarmv1.Conflict, h, labelled *lab.Host) {
	t.Helper()
	node, err := client(t, h).CoreV1().Nodes().Get(t.Context(), labelled.Name, metav1.GetOptions{})
	check(t, err)
	if node.Labels["seen"] != "" || len(node.Spec.Taints) > 0 {
		t.Errorf("node %s has labels %v and taints %v, from a side that did not see it", node.Name, node.Labels, node.Spec.Taints)
	}
	var told []string
	for _, e := range journal {
		if e.Resource == "nodes" && !e.Derived {
			told = append(told, e.Name)
		}
	}
	if !slices.Equal(told, []string{labelled.Name}) {
		t.Errorf("the journal tells of the nodes %v, want %s only", told, labelled.Name)
	}
}

// merged checks what two sides became.
func merged(t *testing.T, c *lab.Cluster, sides ...*side) {
	t.Helper()
	journal := conflicts(t, c.Hosts[4])
	nodesKnown(t, journal, c.Hosts[3], sides[0].hosts[0])
	var overwritten []lab.Version
	for _, entry := range journal {
		if cm := configMap(t, entry.Overwritten); cm != nil {
			overwritten = append(overwritten, lab.VersionOf(cm))
		}
	}
	for _, s := range sides {
		t.Logf("%s: %d and %d acknowledged writes", s.name, s.own.Count(), s.shared.Count())
		kept(t, s.own, c.Hosts, nil)
		kept(t, s.shared, c.Hosts, overwritten)
	}
	for name, want := range map[string]string{"newest-left": "left", "newest-right": "right", "deleted-right": ""} {
		if got := value(t, c.Hosts[3], name); got != want {
			t.Errorf("%s is %q after the merge, the newest was %q", name, got, want)
		}
		var entry *swarmv1.Conflict
		for _, e := range journal {
			if e.Resource == "configmaps" && e.Name == name {
				entry = &e
			}
		}
		if entry == nil {
			t.Errorf("%s was overwritten, but is not in the journal", name)
			continue
		}
		older := map[string]string{"newest-left": "right", "newest-right": "left", "deleted-right": "left"}[name]
		if cm := configMap(t, entry.Overwritten); cm == nil || cm.Data["v"] != older {
			t.Errorf("%s: the journal says that %+v was overwritten, it was %q", name, entry.Overwritten, older)
		}
		if cm := configMap(t, entry.Kept); want != "" && (cm == nil || cm.Data["v"] != want) || want == "" && !entry.Kept.Deleted {
			t.Errorf("%s: the journal says that %+v was kept, it was %q", name, entry.Kept, want)
		}
		undo(t, c, entry.ID, name, older)
	}
}

// undo lists the journal on one node and brings a version back on another, by the commands people use.
func undo(t *testing.T, c *lab.Cluster, id, name, older string) {
	t.Helper()
	psctl := func(h *lab.Host, args ...string) string {
		inside, _ := h.DataDir()
		args = append([]string{"env", "KUBECONFIG=" + inside + "/admin.kubeconfig", h.Bin("psctl"), "swarm", "conflicts"}, args...)
		out, errOut, err := h.Run(t.Context(), "", args...)
		if err != nil {
			t.Errorf("%s: %v: %s%s", strings.Join(args[2:], " "), err, out, errOut)
		}
		return out
	}
	if out := psctl(c.Hosts[1], "list"); !strings.Contains(out, name) {
		t.Errorf("psctl swarm conflicts list does not tell of %s:\n%s", name, out)
	}
	psctl(c.Hosts[2], "undo", id, "--yes")
	if got := value(t, c.Hosts[0], name); got != older {
		t.Errorf("%s is %q after undo, want %q", name, got, older)
	}
}

func value(t *testing.T, h *lab.Host, name string) string {
	t.Helper()
	cm, err := client(t, h).CoreV1().ConfigMaps(ns).Get(t.Context(), name, metav1.GetOptions{})
	if apierrors.IsNotFound(err) {
		return ""
	}
	check(t, err)
	return cm.Data["v"]
}

// conflicts reads the journal with all values.
func conflicts(t *testing.T, h *lab.Host) []swarmv1.Conflict {
	t.Helper()
	var list swarmv1.List[swarmv1.Conflict]
	check(t, h.Get(t.Context(), "/swarm/v1/conflicts", &list))
	for i, entry := range list.Items {
		check(t, h.Get(t.Context(), "/swarm/v1/conflicts/"+entry.ID, &list.Items[i]))
	}
	return list.Items
}

// configMap decodes a version in the journal; nil when it was deleted or is something else.
func configMap(t *testing.T, v swarmv1.Version) *corev1.ConfigMap {
	t.Helper()
	if v.Value == nil || len(v.Value.Object) == 0 {
		return nil
	}
	var cm corev1.ConfigMap
	if err := json.Unmarshal(v.Value.Object, &cm); err != nil || cm.Kind != "ConfigMap" {
		return nil
	}
	return &cm
}

// nothingTwice waits until no pod and no address exists twice, and one ReplicaSet's pods are left.
func nothingTwice(t *testing.T, c *lab.Cluster) {
	t.Helper()
	eventually(t, 30*time.Second, func() error { return running(t.Context(), c.Hosts[0], "twin", 2, c.Hosts) })
	onlyOnce(t, c.Hosts[1], "twin")
	onlyOnce(t, c.Hosts[1], "db")
	eventually(t, 30*time.Second, func() error {
		taken := map[string]string{}
		claim := func(what, ip string) error {
			if ip == "" || ip == corev1.ClusterIPNone {
				return nil
			}
			if other, known := taken[ip]; known {
				return fmt.Errorf("%s and %s have the same address %s", other, what, ip)
			}
			taken[ip] = what
			return nil
		}
		core := client(t, c.Hosts[2]).CoreV1()
		services, err := core.Services("").List(t.Context(), metav1.ListOptions{})
		if err != nil {
			return err
		}
		for _, s := range services.Items {
			if err := claim("service "+s.Namespace+"/"+s.Name, s.Spec.ClusterIP); err != nil {
				return err
			}
		}
		for _, name := range []string{"of-left", "of-right"} {
			if _, err := core.Services(ns).Get(t.Context(), name, metav1.GetOptions{}); err != nil {
				return err
			}
		}
		list, err := core.Pods("").List(t.Context(), metav1.ListOptions{})
		if err != nil {
			return err
		}
		for _, p := range list.Items {
			if p.Spec.HostNetwork {
				continue
			}
			if err := claim("pod "+p.Namespace+"/"+p.Name, p.Status.PodIP); err != nil {
				return err
			}
		}
		return nil
	})
}
