package liveness

import (
	"context"
	"log/slog"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/informers"
	"k8s.io/client-go/kubernetes/fake"
	"k8s.io/client-go/tools/record"
)

// gossip is a Source that a test commands.
type gossip struct {
	mu      sync.Mutex
	members map[string]Member
	changed chan struct{}
}

func (g *gossip) Members() []Member {
	g.mu.Lock()
	defer g.mu.Unlock()
	var out []Member
	for _, m := range g.members {
		out = append(out, m)
	}
	return out
}

func (g *gossip) Changed() <-chan struct{} {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.changed
}

func (g *gossip) set(name string, alive bool) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.members[name] = Member{Name: name, Alive: alive, Since: time.Now()}
	close(g.changed)
	g.changed = make(chan struct{})
}

// swarm is a cluster in which nothing but the Controller runs, in virtual time.
type swarm struct {
	*fake.Clientset
	gossip *gossip
	lost   *losses
	events *record.FakeRecorder
}

// simulate runs f with a Controller over nodes n1, n2 and so on, all of them alive and ready.
func simulate(t *testing.T, nodes int, f func(t *testing.T, s *swarm)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithCancel(t.Context())
		s := &swarm{
			Clientset: fake.NewClientset(), events: record.NewFakeRecorder(100),
			gossip: &gossip{members: map[string]Member{}, changed: make(chan struct{})},
			lost:   &losses{open: map[string]bool{}, changed: make(chan struct{})},
		}
		for i := range nodes {
			name := "n" + string(rune('1'+i))
			s.gossip.set(name, true)
			s.add(t, name)
		}
		factory := informers.NewSharedInformerFactory(s, 0)
		bench := NewBench(DefaultRules(), s.gossip, factory.Core().V1().Nodes().Lister(), time.Now)
		c, err := New(Config{
			Client: s, Informers: factory, Bench: bench, Lost: s.lost, Events: s.events, Log: slog.New(slog.DiscardHandler), Now: time.Now,
		})
		if err != nil {
			t.Fatal(err)
		}
		factory.Start(ctx.Done())
		var running sync.WaitGroup
		running.Go(func() { c.Run(ctx) })
		running.Go(func() { bench.Watch(ctx, c.Review) })
		synctest.Wait()
		f(t, s)
		cancel()
		running.Wait()
		factory.Shutdown()
	})
}

// pass lets virtual time pass.
func pass(d time.Duration) {
	<-time.After(d)
	synctest.Wait()
}

func (s *swarm) add(t *testing.T, name string) {
	t.Helper()
	node := &corev1.Node{
		ObjectMeta: metav1.ObjectMeta{Name: name},
		Status:     corev1.NodeStatus{Conditions: []corev1.NodeCondition{{Type: corev1.NodeReady, Status: corev1.ConditionTrue}}},
	}
	if _, err := s.CoreV1().Nodes().Create(t.Context(), node, metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
}

func (s *swarm) ready(t *testing.T, name string) corev1.ConditionStatus {
	t.Helper()
	n, err := s.CoreV1().Nodes().Get(t.Context(), name, metav1.GetOptions{})
	if err != nil {
		t.Fatal(err)
	}
	return find(n.Status.Conditions, corev1.NodeReady).Status
}

// pod makes a ready pod on n3; one that is ending when told so.
func (s *swarm) pod(t *testing.T, name, owner string, ending bool) {
	t.Helper()
	yes := true
	p := &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{
			Namespace: "default", Name: name, UID: types.UID(name),
			OwnerReferences: []metav1.OwnerReference{{Kind: owner, Controller: &yes}},
		},
		Spec: corev1.PodSpec{NodeName: "n3"},
		Status: corev1.PodStatus{Conditions: []corev1.PodCondition{
			{Type: corev1.ContainersReady, Status: corev1.ConditionTrue}, {Type: corev1.PodReady, Status: corev1.ConditionTrue},
		}},
	}
	if ending {
		now := metav1.Now()
		p.DeletionTimestamp, p.Finalizers = &now, []string{"kept/by-the-fake"}
	}
	if _, err := s.CoreV1().Pods("default").Create(t.Context(), p, metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
}

// pods lists the pods that are left, with their readiness.
func (s *swarm) pods(t *testing.T) []string {
	t.Helper()
	list, err := s.CoreV1().Pods("default").List(t.Context(), metav1.ListOptions{})
	if err != nil {
		t.Fatal(err)
	}
	var out []string
	for i := range list.Items {
		p, state := &list.Items[i], "?"
		for _, c := range p.Status.Conditions {
			if c.Type == corev1.PodReady {
				state = string(c.Status)
			}
		}
		out = append(out, p.Name+" "+state)
	}
	slices.Sort(out)
	return out
}

func (s *swarm) expect(t *testing.T, when string, want ...string) {
	t.Helper()
	if got := s.pods(t); !slices.Equal(got, want) {
		t.Errorf("%s: pods are %q, want %q", when, got, want)
	}
}

func TestDeadNode(t *testing.T) {
	simulate(t, 3, func(t *testing.T, s *swarm) {
		t.Helper()
		s.pod(t, "web", "ReplicaSet", true)
		s.pod(t, "db", "StatefulSet", true)
		s.pod(t, "db-stays", "StatefulSet", false)
		pass(time.Minute)
		s.expect(t, "all alive", "db True", "db-stays True", "web True")

		s.gossip.set("n3", false)
		pass(0)
		if got := s.ready(t, "n3"); got != corev1.ConditionUnknown {
			t.Errorf("dead node is %s", got)
		}
		if got := s.ready(t, "n2"); got != corev1.ConditionTrue {
			t.Errorf("its neighbour is %s", got)
		}
		s.expect(t, "at once", "db False", "db-stays False", "web False")
		s.pod(t, "late", "ReplicaSet", false) // was on its way
		pass(46 * time.Second)
		s.expect(t, "before the node can have stopped it", "db False", "db-stays False", "late False", "web False")
		pass(time.Second)
		s.expect(t, "after 46.8 s", "db-stays False", "late False", "web False")
	})
}

func TestFlap(t *testing.T) {
	simulate(t, 3, func(t *testing.T, s *swarm) {
		t.Helper()
		s.pod(t, "db", "StatefulSet", true)
		for range 5 { // never dead for long enough in one piece
			s.gossip.set("n3", false)
			pass(30 * time.Second)
			s.gossip.set("n3", true)
			pass(30 * time.Second)
		}
		s.expect(t, "after flapping", "db False") // its agent, which is not here, would say True
	})
}

func TestFence(t *testing.T) {
	simulate(t, 2, func(t *testing.T, s *swarm) {
		t.Helper()
		s.add(t, "n3")
		s.gossip.set("n3", false)
		s.gossip.set("n2", false)
		s.pod(t, "db", "StatefulSet", true)
		pass(time.Hour)
		s.expect(t, "one of three waits for ever", "db False")
		fence := []byte(`{"metadata":{"annotations":{"` + FencedAnnotation + `":"true"}}}`)
		if _, err := s.CoreV1().Nodes().Patch(t.Context(), "n3", types.MergePatchType, fence, metav1.PatchOptions{}); err != nil {
			t.Fatal(err)
		}
		pass(0)
		s.expect(t, "fenced")
		s.pod(t, "late", "StatefulSet", true)
		pass(turn)
		s.expect(t, "fenced before it was deleted")
		s.gossip.set("n3", true)
		pass(0)
		n, err := s.CoreV1().Nodes().Get(t.Context(), "n3", metav1.GetOptions{})
		if err != nil || len(n.Annotations) != 0 {
			t.Errorf("the fence of a node that is back: %v, %v", n.Annotations, err)
		}
	})
}

// A Node that gossip does not know is given time to appear: a leader that has just started knows few.
func TestAbsent(t *testing.T) {
	simulate(t, 3, func(t *testing.T, s *swarm) {
		t.Helper()
		s.add(t, "n4")
		s.add(t, "n5")
		pass(9 * time.Second)
		s.gossip.set("n4", true)
		pass(time.Second)
		if got := s.ready(t, "n4"); got != corev1.ConditionTrue {
			t.Errorf("a node that gossip has met is %s", got)
		}
		if got := s.ready(t, "n5"); got != corev1.ConditionUnknown {
			t.Errorf("a node that gossip has not met for 10 s is %s", got)
		}
	})
}

// Those that a person fenced are on no other side: the rest decides without them.
func TestCensusWithoutFenced(t *testing.T) {
	simulate(t, 5, func(t *testing.T, s *swarm) {
		t.Helper()
		s.pod(t, "db", "StatefulSet", true)
		for _, name := range []string{"n3", "n4", "n5"} {
			s.gossip.set(name, false)
		}
		pass(time.Hour)
		s.expect(t, "two of five", "db False")
		fence := []byte(`{"metadata":{"annotations":{"` + FencedAnnotation + `":"true"}}}`)
		for _, name := range []string{"n4", "n5"} {
			if _, err := s.CoreV1().Nodes().Patch(t.Context(), name, types.MergePatchType, fence, metav1.PatchOptions{}); err != nil {
				t.Fatal(err)
			}
		}
		pass(time.Second)
		// n3 may have been on the other side with n4 and n5 until they were switched off.
		s.expect(t, "two of three, just now", "db False")
		pass(DefaultRules().ReplaceAfter + 3*DefaultRules().ReplacePerNode)
		s.expect(t, "two of three")
	})
}
