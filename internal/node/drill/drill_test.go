package drill

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"sync"
	"testing"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes/fake"

	"github.com/podman-swarm/podman-swarm/internal/node/nodetest"
	"github.com/podman-swarm/podman-swarm/internal/node/peers"
	"github.com/podman-swarm/podman-swarm/internal/swarm"
)

// rehearsal is three nodes that can play dead, and the objects of a cluster.
type rehearsal struct {
	nodes  []*nodetest.Node
	drills []*Drills
	client *fake.Clientset

	mu   sync.Mutex
	said []string
}

const testPause = 5 * time.Second

func rehearse(t *testing.T) *rehearsal {
	t.Helper()
	two := int32(2)
	set := &appsv1.ReplicaSet{ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: "web", UID: "web"}, Spec: appsv1.ReplicaSetSpec{Replicas: &two}}
	set.Status.ReadyReplicas = 2
	r := &rehearsal{
		nodes: nodetest.Swarm(t, "n1", "n2", "n3"),
		client: fake.NewClientset(set, node("n1", true, true), node("n2", true, true), node("n3", true, true),
			podOf("web-1", "n2", "ReplicaSet web"), podOf("web-2", "n3", "ReplicaSet web"), podOf("lone", "n2", "")),
	}
	for _, n := range r.nodes {
		d := New(Config{
			Node: n.Name, Store: n.Store, Peers: n.Peers, Client: r.client, Log: slog.New(slog.DiscardHandler), Pause: testPause,
			Members: r.members(n),
			PlayDead: func(delay, pause time.Duration, _ func(error)) error {
				time.AfterFunc(delay, func() {
					n.Die()
					time.AfterFunc(pause, func() { n.Start(t); r.answer(n, nil) })
				})
				return nil
			},
		})
		r.answer(n, d)
		r.drills = append(r.drills, d)
	}
	return r
}

func (r *rehearsal) answer(n *nodetest.Node, d *Drills) {
	answers := peers.Answers{"words": func(context.Context, string) (any, error) { return peers.Words{Node: n.Name}, nil }}
	if d != nil {
		answers[Question] = d.Obey
	}
	n.Peers.AnswerQuestions(answers)
}

func (r *rehearsal) members(n *nodetest.Node) func(context.Context) ([]swarm.Member, error) {
	return func(context.Context) ([]swarm.Member, error) {
		var out []swarm.Member
		for _, m := range n.Peers.Members() {
			out = append(out, swarm.Member{Name: m.Name, Address: m.Addr, State: m.State.String(), Role: swarm.RoleVoter})
		}
		return out, nil
	}
}

func (r *rehearsal) say(format string, args ...any) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.said = append(r.said, fmt.Sprintf(format, args...))
}

// controllers do what the cluster's would do about a dead node.
func (r *rehearsal) controllers(t *testing.T, watcher *nodetest.Node) {
	t.Helper()
	nodetest.Eventually(t, "n2 is dead", func() bool { m, _ := watcher.Peers.Member("n2"); return !m.Alive() })
	pods := r.client.CoreV1().Pods("default")
	for _, name := range []string{"web-1", "lone"} {
		if err := pods.Delete(t.Context(), name, metav1.DeleteOptions{}); err != nil {
			t.Error(err)
		}
	}
	if _, err := pods.Create(t.Context(), podOf("web-3", "n1", "ReplicaSet web"), metav1.CreateOptions{}); err != nil {
		t.Error(err)
	}
}

func TestDrill(t *testing.T) {
	r := rehearse(t)
	result, err := r.drills[0].Drill(t.Context(), swarm.DrillRequest{Node: "n2", DryRun: true}, r.say)
	if err != nil || !result.DryRun || result.Node != "n2" || result.Pods != 1 || len(result.Plan) != 3 || len(r.said) > 0 {
		t.Fatalf("dry run: %+v, %v, said %q", result, err, r.said)
	}

	ctx, gone := context.WithCancel(t.Context())
	type end struct {
		swarm.DrillResult
		error
	}
	done := make(chan end, 1)
	go func() {
		result, err := r.drills[0].Drill(ctx, swarm.DrillRequest{Node: "n2"}, r.say)
		done <- end{result, err}
	}()
	nodetest.Eventually(t, "the drill is noted", func() bool { _, ok := r.nodes[2].Store.View().Get(key); return ok })
	gone() // the client: the drill goes on
	if _, err := r.drills[2].Drill(t.Context(), swarm.DrillRequest{Node: "n1"}, r.say); err == nil || !strings.Contains(err.Error(), "another drill is under way") {
		t.Errorf("a second drill: %v", err)
	}
	r.controllers(t, r.nodes[0])
	e := <-done
	if e.error != nil {
		t.Fatalf("%v, said %q", e.error, r.said)
	}
	took := map[string]time.Duration{}
	for _, timing := range e.Timings {
		took[timing.Name] = time.Duration(timing.Took)
	}
	if len(took) != 3 || took["detection"] <= 0 || took["detection"] > testPause || took["replacement"] < took["detection"]-time.Second || e.Finished.IsZero() {
		t.Errorf("timings %v, said %q", took, r.said)
	}
	lone, err := r.client.CoreV1().Pods("default").Get(t.Context(), "lone", metav1.GetOptions{})
	if err != nil || lone.Spec.NodeName != "" || lone.UID != "" || len(lone.Spec.Containers) != 1 {
		t.Errorf("the bare pod was put back as %+v, %v", lone, err)
	}
	nodetest.Eventually(t, "nothing is left in the state", func() bool { _, ok := r.nodes[2].Store.View().Get(key); return !ok })
}

// A node that does not die is told from one that does: the drill fails, and leaves nothing behind.
func TestDrillOfANodeThatRefuses(t *testing.T) {
	r := rehearse(t)
	r.drills[1].PlayDead = func(time.Duration, time.Duration, func(error)) error { return errors.New("no such luck") }
	_, err := r.drills[0].Drill(t.Context(), swarm.DrillRequest{Node: "n2"}, r.say)
	if err == nil || err.Error() != "node n2 does not play dead: no such luck" {
		t.Errorf("have %v", err)
	}
	if _, ok := r.nodes[0].Store.View().Get(key); ok {
		t.Error("the drill is still noted")
	}
	if _, err := r.client.CoreV1().Pods("default").Get(t.Context(), "lone", metav1.GetOptions{}); apierrors.IsNotFound(err) {
		t.Error("a pod is gone")
	}
}

// An agent that ends while it watches ends the drill with it.
func TestWatcherEnds(t *testing.T) {
	r := rehearse(t)
	r.drills[1].PlayDead = func(time.Duration, time.Duration, func(error)) error { r.drills[0].End(); return nil }
	begin := time.Now()
	if _, err := r.drills[0].Drill(t.Context(), swarm.DrillRequest{Node: "n2"}, r.say); err == nil || time.Since(begin) > testPause {
		t.Errorf("%v after %s", err, time.Since(begin))
	}
}

func TestObey(t *testing.T) {
	var fail func(error)
	d := New(Config{Log: slog.New(slog.DiscardHandler), PlayDead: func(_, _ time.Duration, failed func(error)) error { fail = failed; return nil }})
	for _, argument := range []string{"", "{}", `{"for":"-1s"}`, `{"for":"24h"}`} {
		if got, err := d.Obey(t.Context(), argument); err == nil {
			t.Errorf("%q was answered %v", argument, got)
		}
	}
	if _, err := d.Obey(t.Context(), `{"for":"30s"}`); err != nil {
		t.Fatal(err)
	}
	if _, err := d.Obey(t.Context(), `{"for":"30s"}`); err == nil || !strings.Contains(err.Error(), "already") {
		t.Errorf("a second order: %v", err)
	}
	fail(errors.New("exec format error"))
	if _, err := d.Obey(t.Context(), `{"for":"30s"}`); err != nil {
		t.Errorf("after a death that failed: %v", err)
	}
}

// What is missing counts only pods that are ready elsewhere; what was deleted misses nothing.
func TestMissing(t *testing.T) {
	three := int32(3)
	ending := podOf("ending", "n1", "ReplicaSet web")
	ending.DeletionTimestamp, ending.Finalizers = &metav1.Time{Time: time.Now()}, []string{"x/y"}
	unready := podOf("unready", "n1", "ReplicaSet web")
	unready.Status.Conditions = nil
	client := fake.NewClientset(
		&appsv1.ReplicaSet{ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: "web", UID: "web"}, Spec: appsv1.ReplicaSetSpec{Replicas: &three}},
		podOf("a", "n1", "ReplicaSet web"), podOf("b", "n2", "ReplicaSet web"), podOf("other", "n1", "ReplicaSet other"), ending, unready,
	)
	a, err := watchPods(t.Context(), client)
	if err != nil {
		t.Fatal(err)
	}
	defer a.leave()
	sets := plan{replaced: []*corev1.Pod{podOf("b", "n2", "ReplicaSet web"), podOf("x", "n2", "ReplicaSet gone")}}.sets()
	missing, err := a.missing(sets, "n2")
	if err != nil || strings.Join(missing, ";") != "default/web (1 of 3)" {
		t.Errorf("missing %q, %v", missing, err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := a.replacedAt(ctx, sets, "n2"); err == nil || err.Error() != "not ready on other nodes: default/web (1 of 3)" {
		t.Errorf("in vain: %v", err)
	}
}
