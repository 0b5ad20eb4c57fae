package liveness

import (
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	listers "k8s.io/client-go/listers/core/v1"
	"k8s.io/client-go/tools/cache"
)

// A node that stopped on purpose counts as alive until it is missed; then it is as dead as any.
func TestANodeThatWillBeBack(t *testing.T) {
	start := time.Unix(1000, 0)
	now := start
	nodes := cache.NewIndexer(cache.MetaNamespaceKeyFunc, cache.Indexers{})
	for _, name := range []string{"n1", "n2", "n3"} {
		if err := nodes.Add(&corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: name}}); err != nil {
			t.Fatal(err)
		}
	}
	source := &gossip{changed: make(chan struct{}), members: map[string]Member{
		"n1": {Name: "n1", Alive: true}, "n2": {Name: "n2", Alive: true},
		"n3": {Name: "n3", Since: start, Back: start.Add(15 * time.Second)},
	}}
	bench := NewBench(DefaultRules(), source, listers.NewNodeLister(nodes), func() time.Time { return now })
	verdict := func() Verdict {
		t.Helper()
		v, err := bench.Verdict(&corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: "n3"}})
		if err != nil {
			t.Fatal(err)
		}
		return v
	}
	if v := verdict(); v.Dead || v.Evict || !v.Again.Equal(start.Add(15*time.Second)) {
		t.Errorf("just stopped: %+v", v)
	}
	now = start.Add(15 * time.Second)
	if v := verdict(); !v.Dead || !v.Evict || v.Force {
		t.Errorf("missed: %+v", v)
	}
}
