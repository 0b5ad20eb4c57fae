package machine

import (
	"testing"
	"testing/synctest"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
)

// object is the Node object, nil when there is none.
func (l *leader) object(t *testing.T) *corev1.Node {
	t.Helper()
	n, err := l.CoreV1().Nodes().Get(t.Context(), "n0", metav1.GetOptions{})
	if err != nil && !apierrors.IsNotFound(err) {
		t.Fatal(err)
	}
	if err != nil {
		return nil
	}
	return n
}

func (l *leader) remove(t *testing.T) {
	t.Helper()
	if err := l.CoreV1().Nodes().Delete(t.Context(), "n0", metav1.DeleteOptions{}); err != nil {
		t.Fatal(err)
	}
}

// A node that lives makes its object again when somebody deletes it (kubectl delete node, or a restore of a
// backup that is older than the node): at once, then ever later, so that two who disagree do not write all the
// time.
func TestDeletedObjectIsMadeAgain(t *testing.T) {
	keep(t, func(t *testing.T, l *leader) {
		t.Helper()
		l.remove(t)
		synctest.Wait()
		if l.object(t) == nil {
			t.Fatal("it is not made again at once")
		}
		if got := l.ready(t); got != corev1.ConditionTrue {
			t.Errorf("its Ready is %s", got)
		}
		l.mu.Lock()
		before := l.made
		l.mu.Unlock()
		for range 60 {
			if l.object(t) != nil {
				l.remove(t)
			}
			<-time.After(time.Second)
			synctest.Wait()
		}
		l.mu.Lock()
		n := l.made - before
		l.mu.Unlock()
		if n < 4 || n > 12 {
			t.Errorf("it is made %d times in a minute of quarrel", n)
		}
		<-time.After(objectMost)
		synctest.Wait()
		if l.object(t) == nil {
			t.Error("in the end there is none")
		}
	})
}

// Another object of its name (of a backup from before the node left and joined again) says all that the node
// says, whatever the leader made of it.
func TestAnotherObjectIsTakenOver(t *testing.T) {
	for name, status := range map[string]corev1.ConditionStatus{"it is lost": corev1.ConditionUnknown, "it is well": corev1.ConditionTrue} {
		t.Run(name, func(t *testing.T) {
			keep(t, func(t *testing.T, l *leader) {
				t.Helper()
				n := l.object(t)
				n.UID, n.ResourceVersion, n.Labels = types.UID("former"), "900", nil
				n.Status.Addresses = []corev1.NodeAddress{{Type: corev1.NodeInternalIP, Address: "192.0.2.99"}}
				for i := range n.Status.Conditions {
					n.Status.Conditions[i].Status = status
				}
				if _, err := l.CoreV1().Nodes().Update(t.Context(), n, metav1.UpdateOptions{}); err != nil {
					t.Fatal(err)
				}
				synctest.Wait()
				if got := l.ready(t); got != corev1.ConditionTrue {
					t.Errorf("its Ready is %s", got)
				}
				n = l.object(t)
				if n.UID != "former" || n.Labels[corev1.LabelHostname] != "n0" || n.Status.Addresses[0].Address != "192.0.2.1" {
					t.Errorf("%s, labels %v, addresses %v", n.UID, n.Labels, n.Status.Addresses)
				}
				l.say(t, corev1.ConditionUnknown)
				<-time.After(objectFirst)
				synctest.Wait()
				if got := l.ready(t); got != corev1.ConditionTrue {
					t.Errorf("called lost later its Ready is %s", got)
				}
			})
		})
	}
}

// A node that leaves is cordoned, and writes until the others know: it does not make the object again that was
// deleted. If it stays it does.
func TestLeavingNodeStaysAway(t *testing.T) {
	keep(t, func(t *testing.T, l *leader) {
		t.Helper()
		n := l.object(t)
		n.Spec.Unschedulable, n.ResourceVersion = true, "900"
		if _, err := l.CoreV1().Nodes().Update(t.Context(), n, metav1.UpdateOptions{}); err != nil {
			t.Fatal(err)
		}
		synctest.Wait()
		l.remove(t)
		for range 90 {
			<-time.After(time.Second)
			synctest.Wait()
			if l.object(t) != nil {
				t.Fatal("it is made again while the node leaves")
			}
		}
		<-time.After(leaving)
		synctest.Wait()
		if l.object(t) == nil {
			t.Error("the node did not leave, and has no object")
		}
	})
}
