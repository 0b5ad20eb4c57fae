package liveness

import (
	"context"
	"errors"
	"maps"
	"slices"
	"sync"
	"testing"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
)

// losses is a Lost that a test commands.
type losses struct {
	mu      sync.Mutex
	open    map[string]bool
	fail    int // see failNext
	changed chan struct{}
}

func (l *losses) Nodes() []string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return slices.Sorted(maps.Keys(l.open))
}

func (l *losses) End(_ context.Context, node string) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.fail > 0 {
		l.fail--
		return errors.New("no leader")
	}
	delete(l.open, node)
	return nil
}

func (l *losses) Changed() <-chan struct{} {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.changed
}

func (l *losses) add(node string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.open[node] = true
	close(l.changed)
	l.changed = make(chan struct{})
}

// failNext has so many calls of End fail.
func (l *losses) failNext(n int) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.fail = n
}

func (l *losses) want(t *testing.T, when string, want ...string) {
	t.Helper()
	if got := l.Nodes(); !slices.Equal(got, want) {
		t.Errorf("%s: nodes with losses %q, want %q", when, got, want)
	}
}

// wait is how long a node of three must have been dead.
var wait = DefaultRules().ReplaceAfter + 3*DefaultRules().ReplacePerNode

func TestLost(t *testing.T) {
	simulate(t, 3, func(t *testing.T, s *swarm) {
		t.Helper()
		s.lost.add("n2")
		s.lost.add("n3")
		pass(time.Hour)
		s.lost.want(t, "both can say themselves when theirs have ended", "n2", "n3")
		s.gossip.set("n3", false)
		pass(wait - time.Millisecond)
		s.lost.want(t, "before it can have stopped them", "n2", "n3")
		s.lost.failNext(2)
		pass(time.Second)
		s.lost.want(t, "it has had the time", "n2")
		s.lost.add("n3")
		pass(0)
		s.lost.want(t, "dead for long when a merge brings another", "n2")
	})
}

func TestLostWithoutMajority(t *testing.T) {
	simulate(t, 2, func(t *testing.T, s *swarm) {
		t.Helper()
		s.lost.add("n2")
		s.gossip.set("n2", false)
		pass(time.Hour)
		s.lost.want(t, "perhaps it is on the other side", "n2")
		fence := []byte(`{"metadata":{"annotations":{"` + FencedAnnotation + `":"true"}}}`)
		if _, err := s.CoreV1().Nodes().Patch(t.Context(), "n2", types.MergePatchType, fence, metav1.PatchOptions{}); err != nil {
			t.Fatal(err)
		}
		pass(0)
		s.lost.want(t, "fenced")
	})
}

// A node that was removed says nothing any more. A merge may have yet to bring its Node, though.
func TestLostOfADepartedNode(t *testing.T) {
	simulate(t, 3, func(t *testing.T, s *swarm) {
		t.Helper()
		s.gossip.set("n8", true)
		s.lost.add("n8")
		s.lost.add("n9")
		pass(wait - time.Millisecond)
		s.lost.want(t, "just noticed", "n8", "n9")
		pass(time.Millisecond)
		s.lost.want(t, "gone for long enough", "n8")
		pass(time.Hour)
		s.lost.want(t, "gossip sees it", "n8")
		s.gossip.set("n8", false)
		pass(wait / 2)
		s.add(t, "n8")
		pass(wait / 4)
		if err := s.CoreV1().Nodes().Delete(t.Context(), "n8", metav1.DeleteOptions{}); err != nil {
			t.Fatal(err)
		}
		pass(wait - time.Millisecond)
		s.lost.want(t, "it had a Node meanwhile", "n8")
		pass(2 * time.Millisecond)
		s.lost.want(t, "gone for long enough again")
	})
}
