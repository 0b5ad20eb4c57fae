package tap_test

import (
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/tools/cache"
)

// An object that took the place of another of the same name is not an update of it.
func TestAnotherObjectOfTheSameName(t *testing.T) {
	h := build(t)
	tapped := h.source.Open()
	defer tapped.Close()
	told := make(chan string, 10)
	tell := func(what string, obj any) { told <- what + " " + string(obj.(*corev1.ConfigMap).UID) }
	_, err := tapped.Core().V1().ConfigMaps().Informer().AddEventHandler(cache.ResourceEventHandlerFuncs{
		AddFunc:    func(obj any) { tell("add", obj) },
		UpdateFunc: func(_, obj any) { tell("update", obj) },
		DeleteFunc: func(obj any) { tell("delete", obj) },
	})
	if err != nil {
		t.Fatal(err)
	}
	tapped.Start(nil)
	await := func(want string) {
		t.Helper()
		select {
		case got := <-told:
			if got != want {
				t.Fatalf("told %q, want %q", got, want)
			}
		case <-time.After(10 * time.Second):
			t.Fatalf("not told %q", want)
		}
	}
	await("add ")
	for _, step := range []struct {
		uid  types.UID
		want []string
	}{
		{"left", []string{"delete ", "add left"}},
		{"left", []string{"update left"}},
		{"right", []string{"delete left", "add right"}},
	} {
		cm := configMap("first")
		cm.UID = step.uid
		if _, err := h.client.CoreV1().ConfigMaps("ns").Update(t.Context(), cm, metav1.UpdateOptions{}); err != nil {
			t.Fatal(err)
		}
		for _, want := range step.want {
			await(want)
		}
	}
}
