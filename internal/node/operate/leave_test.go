package operate

import (
	"errors"
	"slices"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	kubetesting "k8s.io/client-go/testing"

	"github.com/podman-swarm/podman-swarm/internal/join"
	"github.com/podman-swarm/podman-swarm/internal/node/nodetest"
	"github.com/podman-swarm/podman-swarm/internal/swarm"
)

func TestLeave(t *testing.T) {
	t.Parallel()
	alone := operateOn(t, "n1")
	wantError(t, alone.backends[0].Nodes.Leave(t.Context(), swarm.LeaveRequest{}, alone.say), "node n1 is the only one that is alive")

	o := operateOn(t, "n1", "n2", "n3")
	pods := o.client.CoreV1().Pods("default")
	yes := true
	for _, p := range []*corev1.Pod{
		{ObjectMeta: metav1.ObjectMeta{Name: "a"}, Spec: corev1.PodSpec{NodeName: "n3"}},
		{ObjectMeta: metav1.ObjectMeta{Name: "every", OwnerReferences: []metav1.OwnerReference{{Kind: "DaemonSet", Name: "d", UID: "d", Controller: &yes}}}, Spec: corev1.PodSpec{NodeName: "n3"}},
	} {
		if _, err := pods.Create(t.Context(), p, metav1.CreateOptions{}); err != nil {
			t.Fatal(err)
		}
	}
	if err := o.backends[2].Nodes.Leave(t.Context(), swarm.LeaveRequest{}, o.say); err != nil {
		t.Fatalf("%v, said %q", err, o.said)
	}
	if who := <-o.left; who != "n3" {
		t.Errorf("%s left", who)
	}
	if _, err := pods.Get(t.Context(), "a", metav1.GetOptions{}); err == nil {
		t.Error("its pod was not ended")
	}
	for _, n := range o.nodes[:2] {
		nodetest.Eventually(t, n.Name+" counts two replicas, and forgets n3", func() bool {
			_, known := n.Peers.Member("n3")
			return len(n.Store.Status().Replicas) == 2 && !known
		})
	}
}

// stubborn makes a pod on a node that does not end.
func (o *operated) stubborn(t *testing.T, node string) {
	t.Helper()
	pod := &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Name: "stubborn", UID: "s"}, Spec: corev1.PodSpec{NodeName: node}}
	if _, err := o.client.CoreV1().Pods("default").Create(t.Context(), pod, metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	o.client.PrependReactor("delete", "pods", func(kubetesting.Action) (bool, runtime.Object, error) { return true, nil, nil })
}

func (o *operated) cordoned(t *testing.T, name string) bool {
	t.Helper()
	n, err := o.client.CoreV1().Nodes().Get(t.Context(), name, metav1.GetOptions{})
	if err != nil {
		t.Fatal(err)
	}
	return n.Spec.Unschedulable
}

// A node whose pod does not end stays what it was; with force it leaves all the same.
func TestLeaveWhenAPodDoesNotEnd(t *testing.T) {
	t.Parallel()
	o := operateOn(t, "n1", "n2")
	o.stubborn(t, "n2")
	leaving := nodes{o.configs[1], time.Second}
	err := leaving.Leave(t.Context(), swarm.LeaveRequest{}, o.say)
	wantError(t, err, "1 pods did not end within 1s")
	wantError(t, err, "Node n2 has not left and takes new pods again")
	if o.cordoned(t, "n2") || !slices.Equal(o.said, []string{"1 pods of this node end"}) {
		t.Errorf("cordoned %v, said %q", o.cordoned(t, "n2"), o.said)
	}
	if err := leaving.Leave(t.Context(), swarm.LeaveRequest{Force: true}, o.say); err != nil {
		t.Fatalf("%v, said %q", err, o.said)
	}
	if who := <-o.left; who != "n2" {
		t.Errorf("%s left", who)
	}
	if !slices.ContainsFunc(o.said, func(s string) bool { return strings.Contains(s, "going on although 1 pods did not end") }) {
		t.Errorf("said %q", o.said)
	}
	o.gone(t, "n2")
}

// gone checks that the first node knows nothing of another one but that it was removed.
func (o *operated) gone(t *testing.T, name string) {
	t.Helper()
	first := o.nodes[0]
	nodetest.Eventually(t, first.Name+" counts one replica, and forgets "+name, func() bool {
		_, known := first.Peers.Member(name)
		_, recorded := first.Store.View().Get(join.NodesPrefix + name)
		_, removed := removalOf(first.Store.View(), name)
		return len(first.Store.Status().Replicas) == 1 && !known && !recorded && removed
	})
	if _, err := o.client.CoreV1().Nodes().Get(t.Context(), name, metav1.GetOptions{}); err == nil {
		t.Errorf("the node object of %s is there", name)
	}
}

// What fails is told in one line each, and does not keep the rest from being done.
func TestForcedLeaveTellsWhatFailed(t *testing.T) {
	t.Parallel()
	o := operateOn(t, "n1", "n2")
	o.stubborn(t, "n2")
	broken := true
	no := func(kubetesting.Action) (bool, runtime.Object, error) { return broken, nil, errors.New("no such luck") }
	o.client.PrependReactor("patch", "nodes", no)
	o.client.PrependReactor("delete", "nodes", no)
	leaving := nodes{o.configs[1], time.Second}
	wantError(t, leaving.Leave(t.Context(), swarm.LeaveRequest{}, o.say), "cordon node n2: no such luck")
	if err := leaving.Leave(t.Context(), swarm.LeaveRequest{Force: true}, o.say); err != nil {
		t.Fatalf("%v, said %q", err, o.said)
	}
	want := []string{
		"going on although cordon node n2: no such luck", "1 pods of this node end", "going on although 1 pods did not end within 1s: ",
		"removing the node object of n2", "going on although delete node n2: no such luck", "leaving the replicated state", "leaving the gossip",
	}
	if !slices.EqualFunc(o.said, want, strings.HasPrefix) {
		t.Errorf("said %q, want %q", o.said, want)
	}
	broken = false
	if err := o.client.CoreV1().Nodes().Delete(t.Context(), "n2", metav1.DeleteOptions{}); err != nil {
		t.Error(err)
	}
	o.gone(t, "n2")
}

// Who cordoned a node before it was to leave finds it cordoned when it could not; and a node that left
// in part can be told to leave again.
func TestLeaveThatFails(t *testing.T) {
	t.Parallel()
	o := operateOn(t, "n1", "n2")
	leaving := nodes{o.configs[1], nodetest.Patience}
	patch := []byte(`{"spec":{"unschedulable":true}}`)
	if _, err := o.client.CoreV1().Nodes().Patch(t.Context(), "n2", "application/merge-patch+json", patch, metav1.PatchOptions{}); err != nil {
		t.Fatal(err)
	}
	broken := true
	o.client.PrependReactor("list", "pods", func(kubetesting.Action) (bool, runtime.Object, error) { return broken, nil, errors.New("no such luck") })
	err := leaving.Leave(t.Context(), swarm.LeaveRequest{}, o.say)
	wantError(t, err, "no such luck")
	if !o.cordoned(t, "n2") || strings.Contains(err.Error(), "new pods") {
		t.Errorf("%v, cordoned %v", err, o.cordoned(t, "n2"))
	}
	broken = false

	if err := leaving.strikeOut(t.Context(), "n2"); err != nil {
		t.Fatal(err)
	}
	if err := leaving.Leave(t.Context(), swarm.LeaveRequest{}, o.say); err != nil {
		t.Fatalf("%v, said %q", err, o.said)
	}
	o.gone(t, "n2")
}
