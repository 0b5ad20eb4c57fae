package schedule_test

import (
	"context"
	"fmt"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/informers"
	"k8s.io/client-go/kubernetes/fake"
	"k8s.io/client-go/rest"

	"github.com/podman-swarm/podman-swarm/internal/schedule"
	"github.com/podman-swarm/podman-swarm/internal/tap"
)

// request is what the scheduler asked of the API server.
type request struct{ method, path, user, agent string }

// world is a cluster whose objects are served by informers and whose API takes down what is asked.
type world struct {
	client    *fake.Clientset
	base      informers.SharedInformerFactory
	config    schedule.Config
	transport *http.Transport
	requests  chan request
}

func build(t *testing.T) world {
	t.Helper()
	w := world{client: fake.NewClientset(), transport: &http.Transport{}, requests: make(chan request, 1000)}
	server := httptest.NewServer(http.HandlerFunc(func(out http.ResponseWriter, r *http.Request) {
		w.requests <- request{r.Method, r.URL.Path, r.Header.Get("Impersonate-User"), r.UserAgent()}
		out.Header().Set("Content-Type", "application/json")
		out.WriteHeader(http.StatusCreated)
		fmt.Fprint(out, `{"kind":"Status","apiVersion":"v1","status":"Success"}`)
	}))
	w.base = informers.NewSharedInformerFactory(w.client, 0)
	ctx := t.Context()
	t.Cleanup(func() {
		w.base.Shutdown()
		w.transport.CloseIdleConnections()
		server.Close()
	})
	w.config = schedule.Config{
		REST:      &rest.Config{Host: server.URL, Transport: w.transport},
		Informers: tap.NewSource(w.base, ctx.Done()),
		Log:       slog.New(slog.DiscardHandler),
	}
	return w
}

// start runs the scheduler and returns a function that stops it and waits for Run.
func (w world) start(t *testing.T) func() {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	config, started := w.config, make(chan struct{})
	config.Started = started
	var running sync.WaitGroup
	running.Go(func() {
		if err := schedule.Run(ctx, config); err != nil {
			t.Errorf("run: %v", err)
		}
	})
	stop := func() {
		cancel()
		running.Wait()
	}
	select {
	case <-started:
	case <-time.After(time.Minute):
		stop()
		t.Fatal("the scheduler did not start within a minute")
	}
	return stop
}

func (w world) addNode(t *testing.T, name string, cpu string) {
	t.Helper()
	room := corev1.ResourceList{
		corev1.ResourceCPU: resource.MustParse(cpu), corev1.ResourceMemory: resource.MustParse("1Gi"), corev1.ResourcePods: resource.MustParse("10"),
	}
	node := &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: name}, Status: corev1.NodeStatus{Capacity: room, Allocatable: room}}
	if _, err := w.client.CoreV1().Nodes().Create(t.Context(), node, metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
}

func (w world) addPod(t *testing.T, name string, cpu string) {
	t.Helper()
	pod := &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{Namespace: "ns", Name: name, UID: types.UID(name)},
		Spec: corev1.PodSpec{SchedulerName: corev1.DefaultSchedulerName, Containers: []corev1.Container{{
			Name: "c", Image: "i", Resources: corev1.ResourceRequirements{Requests: corev1.ResourceList{corev1.ResourceCPU: resource.MustParse(cpu)}},
		}}},
	}
	if _, err := w.client.CoreV1().Pods("ns").Create(t.Context(), pod, metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
}

// await returns the first request to a path with this ending.
func (w world) await(t *testing.T, ending string) request {
	t.Helper()
	deadline := time.After(20 * time.Second)
	for {
		select {
		case r := <-w.requests:
			if strings.HasSuffix(r.path, ending) {
				return r
			}
		case <-deadline:
			t.Fatalf("nobody asked for ...%s", ending)
		}
	}
}

func TestPodIsBoundByTheScheduler(t *testing.T) {
	w := build(t)
	defer w.start(t)()
	w.addNode(t, "one", "2")
	w.addPod(t, "web", "1")
	got := w.await(t, "/binding")
	want := request{http.MethodPost, "/api/v1/namespaces/ns/pods/web/binding", "system:kube-scheduler", "kube-scheduler/podman-swarm"}
	if got != want {
		t.Errorf("bound by %+v, want %+v", got, want)
	}
}

// TestPodThatFitsNowhereIsTold also shows that a pod waits for a node with room.
// TestPodIsOnAnotherNode: two halves of a cluster that become one may have bound the same pod to two nodes, and one
// of them has its way. Upstream's scheduler ends the process when it is told so by an update.
func TestPodIsOnAnotherNode(t *testing.T) {
	w := build(t)
	w.addNode(t, "n1", "1")
	w.addNode(t, "n2", "1")
	w.addPod(t, "moved", "1")
	bind := func(node string) {
		t.Helper()
		pods := w.client.CoreV1().Pods("ns")
		pod, err := pods.Get(t.Context(), "moved", metav1.GetOptions{})
		if err != nil {
			t.Fatal(err)
		}
		pod.Spec.NodeName = node
		if _, err := pods.Update(t.Context(), pod, metav1.UpdateOptions{}); err != nil {
			t.Fatal(err)
		}
	}
	bind("n1")
	defer w.start(t)()
	bind("n2")
	bind("")
	w.await(t, "/pods/moved/binding")
	bind("n2")
	w.addPod(t, "other", "1") // for which there is room on n1 only
	w.await(t, "/pods/other/binding")
}

func TestPodThatFitsNowhereIsTold(t *testing.T) {
	w := build(t)
	defer w.start(t)()
	w.addNode(t, "small", "1")
	w.addPod(t, "big", "2")
	if r := w.await(t, "/pods/big/status"); r.method != http.MethodPatch {
		t.Errorf("status changed by %+v, want a patch", r)
	}
	w.addNode(t, "large", "4")
	w.await(t, "/pods/big/binding")
}

// TestRunMayBeRepeated is what leadership does. Nothing may pile up.
func TestRunMayBeRepeated(t *testing.T) {
	w := build(t)
	w.start(t)()
	const runs = 5
	before := w.goroutines(t, 0)
	for range runs {
		w.start(t)()
	}
	if after := w.goroutines(t, before); after >= before+runs {
		t.Errorf("%d goroutines after one run, %d after %d more", before, after, runs)
	}
}

// goroutines counts those there are when their number no longer falls, or as soon as there are no
// more than enough. Idle connections are the client's and do not count.
func (w world) goroutines(t *testing.T, enough int) int {
	t.Helper()
	tick := time.NewTicker(50 * time.Millisecond)
	defer tick.Stop()
	lowest, since := runtime.NumGoroutine(), 0
	for since < 20 && lowest > enough {
		<-tick.C
		w.transport.CloseIdleConnections()
		since++
		if now := runtime.NumGoroutine(); now < lowest {
			lowest, since = now, 0
		}
	}
	return lowest
}
