package agent

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"slices"
	"strconv"
	"strings"
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

	"github.com/podman-swarm/podman-swarm/internal/netd"
	"github.com/podman-swarm/podman-swarm/internal/podman"
	"github.com/podman-swarm/podman-swarm/internal/podman/podmantest"
	"github.com/podman-swarm/podman-swarm/internal/podspec"
	"github.com/podman-swarm/podman-swarm/internal/volume"
)

const nodeName = "n0"

// cables is a Network that only remembers.
type cables struct {
	mu    sync.Mutex
	ids   map[string]netip.Addr
	ports map[uint16]bool
	fail  error
	next  int
}

func (c *cables) Add(_ context.Context, id string) (netd.Attachment, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.fail != nil {
		return netd.Attachment{}, c.fail
	}
	if _, ok := c.ids[id]; !ok {
		c.next++
		c.ids[id] = netip.AddrFrom4([4]byte{10, 244, 0, byte(c.next)})
	}
	return netd.Attachment{ID: id, NetNS: "/run/netns/" + id, IP: c.ids[id]}, nil
}

func (c *cables) Remove(_ context.Context, id string) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	delete(c.ids, id)
	return nil
}

func (c *cables) List(context.Context) ([]netd.Attachment, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	var out []netd.Attachment
	for id, ip := range c.ids {
		out = append(out, netd.Attachment{ID: id, IP: ip})
	}
	return out, nil
}

func (c *cables) DialContext(context.Context, string, string) (net.Conn, error) {
	return nil, errors.New("connection refused")
}

func (c *cables) DialPod(context.Context, string, string, uint16) (net.Conn, error) {
	return nil, errors.New("connection refused")
}

type port struct {
	c *cables
	n uint16
}

func (p port) Close() error {
	p.c.mu.Lock()
	defer p.c.mu.Unlock()
	delete(p.c.ports, p.n)
	return nil
}

func (c *cables) Publish(_ context.Context, p netd.HostPort) (io.Closer, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.ports[p.Port] {
		return nil, errors.New("port in use")
	}
	c.ports[p.Port] = true
	return port{c, p.Port}, nil
}

// shelves are Volumes that only remember.
type shelves struct {
	mu     sync.Mutex
	uids   map[types.UID]int // how often set up
	broken error
}

func (s *shelves) Setup(_ context.Context, pod *corev1.Pod) (map[string]string, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.uids[pod.UID]++
	return map[string]string{}, s.broken
}

func (s *shelves) Mounts(context.Context, volume.MountRequest) ([]volume.Mount, error) {
	return nil, nil
}
func (s *shelves) NextRefresh(*corev1.Pod) time.Time { return time.Time{} }
func (s *shelves) Notes(*corev1.Pod) []string        { return nil }

func (s *shelves) Teardown(_ context.Context, uid types.UID) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.uids, uid)
	return nil
}

func (s *shelves) List() ([]types.UID, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	var out []types.UID
	for uid := range s.uids {
		out = append(out, uid)
	}
	return out, nil
}

// world is one machine with its Podman, and an API, in virtual time.
type world struct {
	t       *testing.T
	api     *fake.Clientset
	podman  *podmantest.Fake
	net     *cables
	volumes *shelves
	dir     string
	run     string
	stop    func() // the agent of now
	writes  *counter
	fence   *gate
	elders  *elders
	stuck   stuck
}

// elders are Predecessors that a test commands.
type elders struct {
	mu      sync.Mutex
	wait    map[types.UID]string // what a pod waits for
	late    map[types.UID]int    // so many times it need not wait yet
	lost    map[types.UID]bool   // of this node, nobody has said to have ended
	ended   []string             // those of which it was said
	fail    int                  // so many calls of Tell
	changed chan struct{}
}

func (e *elders) Wait(pod *corev1.Pod, _ func(types.UID) bool) string {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.late[pod.UID] > 0 {
		e.late[pod.UID]--
		return ""
	}
	return e.wait[pod.UID]
}

func (e *elders) Tell(_ context.Context, runs func(types.UID) bool) error {
	e.mu.Lock()
	defer e.mu.Unlock()
	for uid := range e.lost {
		if runs(uid) {
			continue
		}
		if e.fail > 0 {
			e.fail--
			return errors.New("no leader")
		}
		delete(e.lost, uid)
		e.ended = append(e.ended, string(uid))
	}
	return nil
}

func (e *elders) Changed() <-chan struct{} {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.changed
}

// change changes what they are, and tells of it.
func (e *elders) change(f func()) {
	e.mu.Lock()
	defer e.mu.Unlock()
	f()
	close(e.changed)
	e.changed = make(chan struct{})
}

// said are those of which it was said that they have ended.
func (e *elders) said() string {
	e.mu.Lock()
	defer e.mu.Unlock()
	return strings.Join(e.ended, " ")
}

// gate is a Fence that a test commands.
type gate struct {
	mu        sync.Mutex
	cut, hold bool
	changed   chan struct{}
}

func (g *gate) Cut() bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.cut
}

func (g *gate) Hold() bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.hold
}

func (g *gate) Changed() <-chan struct{} {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.changed
}

func (g *gate) set(cut, hold bool) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.cut, g.hold = cut, hold
	close(g.changed)
	g.changed = make(chan struct{})
}

type counter struct {
	mu     sync.Mutex
	n      map[string]int
	events map[string][]string
}

func (c *counter) count(action clienttesting.Action) (bool, runtime.Object, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if a, ok := action.(clienttesting.CreateAction); ok {
		if e, ok := a.GetObject().(*corev1.Event); ok {
			c.events[e.InvolvedObject.Name] = append(c.events[e.InvolvedObject.Name], e.Reason)
		}
	}
	c.n[action.GetVerb()+" "+action.GetResource().Resource+" "+action.GetSubresource()]++
	return false, nil, nil
}

func (c *counter) get(key string) int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.n[key]
}

// inWorld runs a test in virtual time, with an agent on a machine that has the image "app:1".
func inWorld(t *testing.T, f func(w *world)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		w := &world{
			t: t, podman: podmantest.New(), dir: t.TempDir(), run: t.TempDir(), writes: &counter{n: map[string]int{}, events: map[string][]string{}},
			net:     &cables{ids: map[string]netip.Addr{}, ports: map[uint16]bool{}},
			volumes: &shelves{uids: map[types.UID]int{}},
			fence:   &gate{changed: make(chan struct{})},
			elders:  &elders{wait: map[types.UID]string{}, late: map[types.UID]int{}, lost: map[types.UID]bool{}, changed: make(chan struct{})},
		}
		w.api = fake.NewClientset()
		revisions(w.api)
		w.api.PrependReactor("*", "*", w.writes.count)
		w.podman.AddImage("app:1", podman.Image{Cmd: []string{"/app"}})
		w.start()
		defer func() { w.stop() }()
		f(w)
	})
}

// revisions has the fake API number its writes, as a real one does.
func revisions(api *fake.Clientset) {
	var mu sync.Mutex
	n := 100
	api.PrependReactor("*", "pods", func(action clienttesting.Action) (bool, runtime.Object, error) {
		mu.Lock()
		defer mu.Unlock()
		switch a := action.(type) {
		case clienttesting.CreateAction: // an UpdateAction has the same methods
			n++
			if p, ok := a.GetObject().(*corev1.Pod); ok {
				p.ResourceVersion = strconv.Itoa(n)
			}
		}
		return false, nil, nil
	})
}

// start starts an agent, as after a boot or a restart.
func (w *world) start() {
	w.t.Helper()
	a, err := New(Config{
		NodeName: nodeName, NodeIPs: []netip.Addr{netip.MustParseAddr("192.0.2.1")},
		PodCIDR: netip.MustParsePrefix("10.244.0.0/24"), DataDir: w.dir, RunDir: w.run, Client: stuckAPI{w.api, &w.stuck},
		Runtime: stuckPodman{w.podman, &w.stuck}, Network: w.net, Volumes: stuckVolumes{w.volumes, &w.stuck}, Exits: w.podman.WatchExits,
		Log: slog.New(slog.DiscardHandler), Fence: w.fence, Predecessors: w.elders,
	})
	if err != nil {
		w.t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(w.t.Context())
	done := make(chan error, 1)
	go func() { done <- a.Run(ctx) }()
	w.stop = func() {
		cancel()
		if err := <-done; err != nil {
			w.t.Errorf("agent: %v", err)
		}
	}
	w.wait(time.Second)
}

// wait lets virtual time pass.
func (w *world) wait(d time.Duration) {
	time.Sleep(d) //nolint:forbidigo // virtual time
	synctest.Wait()
}

func newPod(name string, change func(*corev1.Pod)) *corev1.Pod {
	zero := int64(30)
	p := &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{Name: name, Namespace: "default", UID: types.UID("uid-" + name)},
		Spec: corev1.PodSpec{
			NodeName: nodeName, RestartPolicy: corev1.RestartPolicyAlways, TerminationGracePeriodSeconds: &zero,
			Containers: []corev1.Container{{Name: "c", Image: "app:1", ImagePullPolicy: corev1.PullIfNotPresent}},
		},
	}
	if change != nil {
		change(p)
	}
	return p
}

func (w *world) create(p *corev1.Pod) {
	w.t.Helper()
	if _, err := w.api.CoreV1().Pods(p.Namespace).Create(w.t.Context(), p, metav1.CreateOptions{}); err != nil {
		w.t.Fatal(err)
	}
	synctest.Wait()
}

// get returns the pod, nil when the API has it no more.
func (w *world) get(name string) *corev1.Pod {
	w.t.Helper()
	p, err := w.api.CoreV1().Pods("default").Get(w.t.Context(), name, metav1.GetOptions{})
	if err != nil {
		return nil
	}
	return p
}

// change updates the pod as somebody else would.
func (w *world) change(name string, f func(*corev1.Pod)) {
	w.t.Helper()
	p := w.get(name)
	if p == nil {
		w.t.Fatalf("pod %s is gone", name)
	}
	f(p)
	if _, err := w.api.CoreV1().Pods("default").Update(w.t.Context(), p, metav1.UpdateOptions{}); err != nil {
		w.t.Fatal(err)
	}
	synctest.Wait()
}

// deletePod marks the pod as the API server does.
func (w *world) deletePod(name string, grace int64) {
	w.t.Helper()
	w.change(name, func(p *corev1.Pod) {
		at := metav1.NewTime(time.Now().Add(time.Duration(grace) * time.Second))
		p.DeletionTimestamp, p.DeletionGracePeriodSeconds = &at, &grace
	})
}

// brief shows a pod's status in one line.
func (w *world) brief(name string) string {
	w.t.Helper()
	p := w.get(name)
	if p == nil {
		return "gone"
	}
	out := []string{string(p.Status.Phase)}
	for _, group := range [][]corev1.ContainerStatus{p.Status.InitContainerStatuses, p.Status.ContainerStatuses} {
		for _, c := range group {
			s := c.Name + "="
			switch {
			case c.State.Running != nil:
				s += "running"
			case c.State.Waiting != nil:
				s += c.State.Waiting.Reason
			case c.State.Terminated != nil:
				s += fmt.Sprintf("%s(%d)", c.State.Terminated.Reason, c.State.Terminated.ExitCode)
			}
			if l := c.LastTerminationState.Terminated; l != nil {
				s += fmt.Sprintf("<%s(%d)", l.Reason, l.ExitCode)
			}
			if c.RestartCount > 0 {
				s += "x" + strconv.Itoa(int(c.RestartCount))
			}
			if c.Ready {
				s += "+"
			}
			out = append(out, s)
		}
	}
	return strings.Join(out, " ")
}

func (w *world) want(name, want string) {
	w.t.Helper()
	if got := w.brief(name); got != want {
		w.t.Errorf("pod %s is %q, want %q", name, got, want)
	}
}

// running is the ID of the running attempt of a container.
func (w *world) running(pod, container string) string {
	w.t.Helper()
	list, err := w.podman.Containers(w.t.Context(), map[string]string{podspec.LabelPod: pod, podspec.LabelContainer: container})
	if err != nil {
		w.t.Fatal(err)
	}
	for _, c := range list {
		if c.State == podman.Running {
			return c.ID
		}
	}
	return ""
}

// nothingLeft checks that the machine has forgotten its pods.
func (w *world) nothingLeft() {
	w.t.Helper()
	containers, err := w.podman.Containers(w.t.Context(), nil)
	if err != nil {
		w.t.Fatal(err)
	}
	pods, err := w.podman.Pods(w.t.Context(), nil)
	if err != nil {
		w.t.Fatal(err)
	}
	if len(containers)+len(pods)+len(w.net.ids)+len(w.volumes.uids)+len(w.net.ports) > 0 {
		w.t.Errorf("left: %d containers, %d pods, networks %v, volumes %v, ports %v",
			len(containers), len(pods), w.net.ids, w.volumes.uids, w.net.ports)
	}
	if logs, err := os.ReadDir(w.dir + "/logs"); err == nil && len(logs) > 0 {
		w.t.Errorf("left logs: %v", logs)
	}
}

// events are the reasons of an object's events, in order.
func (w *world) events(name string) []string {
	w.writes.mu.Lock()
	defer w.writes.mu.Unlock()
	return slices.Clone(w.writes.events[name])
}
