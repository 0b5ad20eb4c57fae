package machine

import (
	"context"
	"errors"
	"log/slog"
	"strconv"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/kubernetes/fake"
	clienttesting "k8s.io/client-go/testing"
)

// leader writes the conditions of a node, and counts the node's own writes. The fake client
// knows no UIDs and resourceVersions, so it gives them.
type leader struct {
	*fake.Clientset
	mu      sync.Mutex
	version int
	patches int
	made    int
}

func newLeader() *leader {
	l := &leader{Clientset: fake.NewClientset()}
	count := func(a clienttesting.Action) (bool, runtime.Object, error) {
		l.mu.Lock()
		defer l.mu.Unlock()
		if _, ok := a.(clienttesting.PatchAction); ok {
			l.patches++
		}
		return false, nil, nil
	}
	l.PrependReactor("patch", "nodes", count)
	l.PrependReactor("create", "nodes", func(a clienttesting.Action) (bool, runtime.Object, error) {
		l.mu.Lock()
		defer l.mu.Unlock()
		if c, ok := a.(clienttesting.CreateAction); ok {
			l.made++
			if n, ok := c.GetObject().(*corev1.Node); ok {
				n.UID, n.ResourceVersion = types.UID("made-"+strconv.Itoa(l.made)), strconv.Itoa(100+l.made)
			}
		}
		return false, nil, nil
	})
	return l
}

// say writes the status of condition Ready as somebody else than the node.
func (l *leader) say(t *testing.T, status corev1.ConditionStatus) {
	t.Helper()
	n, err := l.CoreV1().Nodes().Get(t.Context(), "n0", metav1.GetOptions{})
	if err != nil {
		t.Fatal(err)
	}
	l.version++
	n.ResourceVersion = strconv.Itoa(1000 + l.version)
	for i := range n.Status.Conditions {
		if n.Status.Conditions[i].Type == corev1.NodeReady {
			n.Status.Conditions[i].Status = status
		}
	}
	if _, err := l.CoreV1().Nodes().UpdateStatus(t.Context(), n, metav1.UpdateOptions{}); err != nil {
		t.Fatal(err)
	}
}

// written is how often the node has written.
func (l *leader) written() int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.patches
}

func (l *leader) ready(t *testing.T) corev1.ConditionStatus {
	t.Helper()
	n, err := l.CoreV1().Nodes().Get(t.Context(), "n0", metav1.GetOptions{})
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range n.Status.Conditions {
		if c.Type == corev1.NodeReady {
			return c.Status
		}
	}
	return "none"
}

// keep runs a Keeper of a node that is well, in virtual time.
func keep(t *testing.T, f func(t *testing.T, l *leader)) {
	t.Helper()
	dir := t.TempDir()
	synctest.Test(t, func(t *testing.T) {
		l := newLeader()
		k := NewKeeper(KeeperConfig{
			Description: healthy(), DataDir: dir, Client: l, Ping: func(context.Context) error { return nil },
			Event: func(string, string, string) {}, Recovered: func(context.Context) {}, Now: time.Now, Log: slog.New(slog.DiscardHandler),
		})
		ctx, cancel := context.WithCancel(t.Context())
		var g sync.WaitGroup
		g.Go(func() {
			if err := k.Run(ctx); !errors.Is(err, context.Canceled) {
				t.Error(err)
			}
		})
		synctest.Wait()
		if got := l.ready(t); got != corev1.ConditionTrue {
			t.Errorf("a node that is well is %s", got)
		}
		f(t, l)
		cancel()
		g.Wait()
	})
}

// A node that was taken for dead says that it is not, at once, each time.
func TestContradicts(t *testing.T) {
	keep(t, func(t *testing.T, l *leader) {
		t.Helper()
		for range 3 {
			l.say(t, corev1.ConditionUnknown)
			synctest.Wait()
			if got := l.ready(t); got != corev1.ConditionTrue {
				t.Fatalf("its Ready is %s", got)
			}
			<-time.After(5 * time.Minute)
		}
	})
}

// A leader that goes on saying that the node is dead is contradicted ever later, but for ever.
func TestQuarrel(t *testing.T) {
	keep(t, func(t *testing.T, l *leader) {
		t.Helper()
		before := l.written()
		for range 60 {
			l.say(t, corev1.ConditionUnknown)
			<-time.After(time.Second)
			synctest.Wait()
		}
		if n := l.written() - before; n < 4 || n > 12 {
			t.Errorf("%d writes in a minute of quarrel", n)
		}
		<-time.After(objectMost)
		synctest.Wait()
		if got := l.ready(t); got != corev1.ConditionTrue {
			t.Errorf("in the end its Ready is %s", got)
		}
	})
}
