package control

import (
	"context"
	"log/slog"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/informers"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/kubernetes/fake"
)

func endpointsOf(names ...string) *corev1.Endpoints { //nolint:staticcheck // deprecated, but served
	e := &corev1.Endpoints{ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: apiService}} //nolint:staticcheck // as above
	s := corev1.EndpointSubset{Ports: []corev1.EndpointPort{{Name: "https", Port: 6443}}}         //nolint:staticcheck // as above
	for _, name := range names {
		s.Addresses = append(s.Addresses, corev1.EndpointAddress{IP: "192.0.2." + name[1:], NodeName: &name})
	}
	e.Subsets = append(e.Subsets, s)
	return e
}

func namesIn(e *corev1.Endpoints) string { //nolint:staticcheck // deprecated, but served
	var names []string
	for _, s := range e.Subsets {
		for _, a := range s.Addresses {
			names = append(names, *a.NodeName)
		}
	}
	return strings.Join(names, " ")
}

func TestWithoutGone(t *testing.T) {
	for name, tt := range map[string]struct {
		have, nodes, alive, dead, want string
		changed                        bool
	}{
		"all alive":            {"n1 n2 n3", "n1 n2 n3", "n1 n2 n3", "", "n1 n2 n3", false},
		"one dead":             {"n1 n2 n3", "n1 n2 n3", "n1 n3", "n2", "n1 n3", true},
		"one deleted":          {"n1 n2 n3", "n1 n3", "n1 n3", "", "n1 n3", true},
		"dead and deleted":     {"n1 n2 n3", "n1 n3", "n1 n3", "n2", "n1 n3", true},
		"one about to be":      {"n1 n2", "n1", "n1 n2", "", "n1 n2", false},
		"not met yet":          {"n1 n2", "n1 n2", "n1", "", "n1 n2", false},
		"nobody would be left": {"n2", "n1 n2", "n1", "n2", "", false},
	} {
		t.Run(name, func(t *testing.T) {
			var nodes []*corev1.Node
			for _, n := range strings.Fields(tt.nodes) {
				nodes = append(nodes, &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: n}})
			}
			var members []Member
			for _, n := range strings.Fields(tt.alive) {
				members = append(members, Member{Name: n, Alive: true})
			}
			for _, n := range strings.Fields(tt.dead) {
				members = append(members, Member{Name: n})
			}
			have := endpointsOf(strings.Fields(tt.have)...)
			got, changed := withoutGone(have, nodes, members)
			if changed != tt.changed || namesIn(got) != tt.want {
				t.Errorf("got %q, changed %v", namesIn(got), changed)
			}
			if namesIn(have) != tt.have {
				t.Error("the argument was changed")
			}
		})
	}
}

func TestEndpointsFollow(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithCancel(t.Context())
		client := fake.NewClientset(append(objects(), endpointsOf("n1", "n2", "n3"))...)
		gossip := &members{dead: map[string]time.Time{}, wake: make(chan struct{})}
		factory := informers.NewSharedInformerFactory(client, 0)
		c, err := newEndpointsController(client, factory.Core().V1().Nodes().Informer(), gossip, slog.New(slog.DiscardHandler))
		if err != nil {
			t.Fatal(err)
		}
		factory.Start(ctx.Done())
		var running sync.WaitGroup
		running.Go(func() { c.Run(ctx) })
		synctest.Wait()
		gossip.kill("n3")
		c.review()
		expectServers(t, client, "n1 n2")
		cancel()
		running.Wait()
		factory.Shutdown()
	})
}

// expectServers checks the endpoints, and the slice that upstream's adapter makes of them.
func expectServers(t *testing.T, client kubernetes.Interface, want string) {
	t.Helper()
	<-time.After(endpointsDelay)
	synctest.Wait()
	e, err := client.CoreV1().Endpoints("default").Get(t.Context(), apiService, metav1.GetOptions{})
	if err != nil || namesIn(e) != want {
		t.Errorf("endpoints: %q, %v; want %q", namesIn(e), err, want)
	}
	s, err := client.DiscoveryV1().EndpointSlices("default").Get(t.Context(), apiService, metav1.GetOptions{})
	if err != nil || len(s.Endpoints) != len(strings.Fields(want)) {
		t.Errorf("slice: %v, %v", s, err)
	}
}
