package tap_test

import (
	"errors"
	"fmt"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/informers"
	"k8s.io/client-go/kubernetes/fake"
	"k8s.io/client-go/tools/cache"

	"github.com/podman-swarm/podman-swarm/internal/tap"
)

// house is a base factory with running informers of ConfigMaps, one of which exists.
type house struct {
	client *fake.Clientset
	base   informers.SharedInformerFactory
	source *tap.Source
}

func build(t *testing.T) house {
	t.Helper()
	ctx := t.Context()
	client := fake.NewClientset(configMap("first"))
	base := informers.NewSharedInformerFactory(client, 0)
	base.Core().V1().ConfigMaps().Informer()
	base.Start(ctx.Done())
	base.WaitForCacheSync(ctx.Done())
	t.Cleanup(func() {
		base.Shutdown()
		goleak.VerifyNone(t)
	})
	return house{client: client, base: base, source: tap.NewSource(base, ctx.Done())}
}

func configMap(name string) *corev1.ConfigMap {
	return &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Namespace: "ns", Name: name}}
}

// heard collects the names of the ConfigMaps a handler was told of.
type heard chan string

func (h heard) handler() cache.ResourceEventHandler {
	return cache.ResourceEventHandlerFuncs{AddFunc: func(obj any) { h <- obj.(*corev1.ConfigMap).Name }}
}

func (h heard) await(t *testing.T, name string) {
	t.Helper()
	select {
	case got := <-h:
		if got != name {
			t.Fatalf("heard of %s, want %s", got, name)
		}
	case <-time.After(10 * time.Second):
		t.Fatalf("did not hear of %s", name)
	}
}

func (h heard) quiet(t *testing.T) {
	t.Helper()
	select {
	case got := <-h:
		t.Fatalf("heard of %s", got)
	default:
	}
}

func TestHandlersHearNothingBeforeStartAndEverythingAfter(t *testing.T) {
	h := build(t)
	tapped := h.source.Open()
	early, late := make(heard, 10), make(heard, 10)
	registration, err := tapped.Core().V1().ConfigMaps().Informer().AddEventHandler(early.handler())
	if err != nil {
		t.Fatal(err)
	}
	// An informer that runs tells a handler within microseconds; a handler attached by mistake has
	// heard by the time one attached to the base itself has.
	witness := make(heard, 10)
	onBase, err := h.base.Core().V1().ConfigMaps().Informer().AddEventHandler(witness.handler())
	if err != nil {
		t.Fatal(err)
	}
	witness.await(t, "first")
	early.quiet(t)
	if registration.HasSynced() {
		t.Error("a handler that is not attached says it has synced")
	}

	tapped.Start(nil)
	early.await(t, "first")
	<-registration.HasSyncedChecker().Done()
	if !registration.HasSynced() {
		t.Error("not synced after its checker is done")
	}
	generic, err := tapped.ForResource(corev1.SchemeGroupVersion.WithResource("configmaps"))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := generic.Informer().AddEventHandlerWithResyncPeriod(late.handler(), time.Hour); err != nil {
		t.Fatal(err)
	}
	late.await(t, "first")
	if err := tapped.Close(); err != nil {
		t.Error(err)
	}
	if err := h.base.Core().V1().ConfigMaps().Informer().RemoveEventHandler(onBase); err != nil {
		t.Error(err)
	}
}

func TestClosedTapHearsNothingWhileTheInformerRunsOn(t *testing.T) {
	h := build(t)
	first, second := h.source.Open(), h.source.Open()
	gone, stays := make(heard, 10), make(heard, 10)
	for tapped, to := range map[*tap.Tap]heard{first: gone, second: stays} {
		if _, err := tapped.Core().V1().ConfigMaps().Informer().AddEventHandler(to.handler()); err != nil {
			t.Fatal(err)
		}
		tapped.Start(nil)
		to.await(t, "first")
	}
	if err := first.Close(); err != nil {
		t.Fatal(err)
	}
	if _, err := h.client.CoreV1().ConfigMaps("ns").Create(t.Context(), configMap("second"), metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	stays.await(t, "second")
	gone.quiet(t)
	if _, err := first.Core().V1().ConfigMaps().Informer().AddEventHandler(gone.handler()); !errors.Is(err, tap.ErrClosed) {
		t.Errorf("adding a handler to a closed tap: %v, want ErrClosed", err)
	}
	if err := errors.Join(first.Close(), second.Close()); err != nil {
		t.Error(err)
	}
}

func TestInformerStartedThroughATapOutlivesIt(t *testing.T) {
	h := build(t)
	first := h.source.Open()
	secrets := first.Core().V1().Secrets()
	secrets.Informer()
	first.Start(nil)
	first.WaitForCacheSync(t.Context().Done())
	if err := first.Close(); err != nil {
		t.Fatal(err)
	}
	first.Shutdown()
	second := h.source.Open()
	told := make(chan string, 1)
	_, err := second.Core().V1().Secrets().Informer().AddEventHandler(cache.ResourceEventHandlerFuncs{
		AddFunc: func(obj any) { told <- obj.(*corev1.Secret).Name },
	})
	if err != nil {
		t.Fatal(err)
	}
	second.Start(nil)
	made := &corev1.Secret{ObjectMeta: metav1.ObjectMeta{Namespace: "ns", Name: "made"}}
	if _, err := h.client.CoreV1().Secrets("ns").Create(t.Context(), made, metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	heard(told).await(t, "made")
	if err := second.Close(); err != nil {
		t.Error(err)
	}
}

func TestCloseWaitsForTheHandlerThatRuns(t *testing.T) {
	h := build(t)
	tapped := h.source.Open()
	entered, leave := make(chan struct{}), make(chan struct{})
	_, err := tapped.Core().V1().ConfigMaps().Informer().AddEventHandler(cache.ResourceEventHandlerFuncs{AddFunc: func(any) {
		close(entered)
		<-leave
	}})
	if err != nil {
		t.Fatal(err)
	}
	tapped.Start(nil)
	<-entered
	closed := make(chan error, 1)
	go func() { closed <- tapped.Close() }()
	defer close(leave)
	select {
	case <-closed:
		t.Fatal("Close returned while the handler was running")
	case <-time.After(100 * time.Millisecond):
	}
	leave <- struct{}{}
	if err := <-closed; err != nil {
		t.Error(err)
	}
}

func TestHandlerRemovedBeforeStartIsNeverAttached(t *testing.T) {
	h := build(t)
	tapped := h.source.Open()
	removed, kept := make(heard, 10), make(heard, 10)
	informer := tapped.Core().V1().ConfigMaps().Informer()
	registration, err := informer.AddEventHandler(removed.handler())
	if err != nil {
		t.Fatal(err)
	}
	if err := cache.ShutDownEventHandler(informer, registration); err != nil {
		t.Fatal(err)
	}
	if _, err := informer.AddEventHandlerWithOptions(kept.handler(), cache.HandlerOptions{}); err != nil {
		t.Fatal(err)
	}
	tapped.Start(nil)
	kept.await(t, "first")
	removed.quiet(t)
	if err := tapped.Close(); err != nil {
		t.Error(err)
	}
}

func byName(obj any) ([]string, error) { return []string{obj.(*corev1.ConfigMap).Name}, nil }

func byNamespace(obj any) ([]string, error) { return []string{obj.(*corev1.ConfigMap).Namespace}, nil }

func TestIndexesAreSharedByTaps(t *testing.T) {
	h := build(t)
	for range 3 {
		tapped := h.source.Open()
		informer := tapped.Core().V1().ConfigMaps().Informer()
		if err := informer.AddIndexers(cache.Indexers{"name": byName}); err != nil {
			t.Fatalf("the same index again: %v", err)
		}
		if err := informer.GetIndexer().AddIndexers(cache.Indexers{"name": byNamespace}); err == nil {
			t.Error("another function under a known name was accepted")
		}
		if _, ok := informer.GetIndexer().GetIndexers()["name"]; !ok {
			t.Error("the index is not listed")
		}
		found, err := informer.GetIndexer().ByIndex("name", "first")
		if err != nil || len(found) != 1 {
			t.Errorf("found %d objects by index (%v), want 1", len(found), err)
		}
		if err := tapped.Close(); err != nil {
			t.Error(err)
		}
	}
}

func TestManyTapsAtOnceLeaveNothingBehind(t *testing.T) {
	h := build(t)
	before := goleak.IgnoreCurrent()
	var borrowers sync.WaitGroup
	for b := range 20 {
		borrowers.Go(func() {
			for i := range 20 {
				tapped := h.source.Open()
				to := make(heard, 10)
				informer := tapped.Core().V1().ConfigMaps().Informer()
				// The sets of indexes are shared by all: without a guard this may end the process.
				index := fmt.Sprintf("%d.%d", b, i)
				if err := informer.AddIndexers(cache.Indexers{index: byName}); err != nil {
					t.Error(err)
				}
				if _, ok := informer.GetIndexer().GetIndexers()[index]; !ok {
					t.Errorf("index %s is lost", index)
				}
				if _, err := informer.AddEventHandler(to.handler()); err != nil {
					t.Error(err)
				}
				tapped.StartWithContext(t.Context())
				if err := tapped.Close(); err != nil {
					t.Error(err)
				}
			}
		})
	}
	borrowers.Wait()
	goleak.VerifyNone(t, before)
}
