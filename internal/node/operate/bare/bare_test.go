package bare

import (
	"context"
	"errors"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/kubernetes/fake"
	clienttesting "k8s.io/client-go/testing"
)

func pod(name, uid, image string) *corev1.Pod {
	return &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{Namespace: metav1.NamespaceDefault, Name: name, UID: types.UID(uid)},
		Spec:       corev1.PodSpec{NodeName: "n1", Containers: []corev1.Container{{Name: "c", Image: image}}},
		Status:     corev1.PodStatus{Phase: corev1.PodRunning},
	}
}

// A pod that was made again from a backup is what it was: a second restore leaves it, wherever it runs.
func TestWhatWasMadeAgainIsNotChanged(t *testing.T) {
	then := pod("p", "then", "v1")
	now := Change{Then: then}.blank()
	now.UID, now.Spec.NodeName = "now", "n2"
	now.Spec.EphemeralContainers = []corev1.EphemeralContainer{{}} // somebody looks into it
	if (Change{Now: now, Then: then}).Needed() {
		t.Error("it is changed")
	}
}

// A pod comes back when one of its name has ended; one that does not end is named.
func TestAPodIsMadeAgainWhenItsPredecessorHasEnded(t *testing.T) {
	client, say := fake.NewClientset(), func(string, ...any) {}
	now := pod("p", "now", "v1")
	now.DeletionTimestamp = &metav1.Time{Time: time.Now()}
	p := Change{Now: now, Then: pod("p", "then", "v1")}
	if !p.Needed() {
		t.Error("a pod that ends now ran then: nothing is to do")
	}
	tries := make(chan struct{}, 100)
	ended := make(chan struct{})
	client.PrependReactor("create", "pods", func(clienttesting.Action) (bool, runtime.Object, error) {
		tries <- struct{}{}
		select {
		case <-ended:
			return false, nil, nil
		default:
			return true, nil, apierrors.NewAlreadyExists(schema.GroupResource{Resource: "pods"}, "p")
		}
	})
	ctx, cancel := context.WithCancel(t.Context())
	failed := make(chan error)
	go func() { failed <- p.Make(ctx, client, say) }()
	<-tries
	<-tries
	cancel()
	if err := <-failed; err == nil || !strings.Contains(err.Error(), "pod default/p has not ended on node n1") {
		t.Error(err)
	}
	go func() { failed <- p.Make(t.Context(), client, say) }()
	<-tries
	close(ended)
	if err := <-failed; err != nil {
		t.Error(err)
	}
	client.PrependReactor("delete", "pods", func(clienttesting.Action) (bool, runtime.Object, error) {
		return true, nil, errors.New("the API is away")
	})
	err := Change{Now: pod("made", "1", "v1")}.Make(t.Context(), client, say)
	if err == nil || err.Error() != "delete pod default/made: the API is away" {
		t.Error(err)
	}
}
