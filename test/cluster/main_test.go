//go:build e2e

package cluster

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"

	"github.com/podman-swarm/podman-swarm/test/lab"
)

// machines makes n machines without agents; they end with the test.
func machines(t *testing.T, n int) *lab.Cluster {
	t.Helper()
	return machinesOf(t, n, strings.Fields(os.Getenv("SWARM_CLUSTER_FLAGS"))...)
}

// machinesOf is machines with flags of their own.
func machinesOf(t *testing.T, n int, flags ...string) *lab.Cluster {
	t.Helper()
	first := 31
	if s := os.Getenv("SWARM_CLUSTER_FIRST"); s != "" {
		var err error
		if first, err = strconv.Atoi(s); err != nil {
			t.Fatal(err)
		}
	}
	c, err := lab.NewCluster("../..", first, n, flags...)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if t.Failed() {
			for _, h := range c.Hosts {
				t.Logf("log of the agent on %s, its end:\n%s", h.Name, h.TailLog(30))
			}
		}
		keepLogs(t, c)
		if os.Getenv("SWARM_E2E_KEEP") != "" {
			return
		}
		if err := c.Remove(context.Background()); err != nil {
			t.Error(err)
		}
	})
	check(t, c.Add(t.Context()))
	return c
}

// keepLogs puts the agents' logs into $SWARM_CLUSTER_LOGS: the next test has machines of the same names.
func keepLogs(t *testing.T, c *lab.Cluster) {
	t.Helper()
	dir := os.Getenv("SWARM_CLUSTER_LOGS")
	if dir == "" {
		return
	}
	check(t, os.MkdirAll(dir, 0o755))
	for _, h := range c.Hosts {
		if err := os.Rename(h.AgentLog(), filepath.Join(dir, t.Name()+"-"+h.Name+".log")); err != nil && !os.IsNotExist(err) {
			t.Error(err)
		}
	}
}

// nodes is how many machines a story is told with: as many as it needs, or $SWARM_CLUSTER_NODES.
func nodes(t *testing.T, usual int) int {
	t.Helper()
	text := os.Getenv("SWARM_CLUSTER_NODES")
	if text == "" {
		return usual
	}
	n, err := strconv.Atoi(text)
	if err != nil || n < usual {
		t.Fatalf("SWARM_CLUSTER_NODES=%s: want a number of at least %d", text, usual)
	}
	return n
}

// swarm makes n machines of one swarm, all ready.
func swarm(t *testing.T, n int) *lab.Cluster {
	t.Helper()
	c := machines(t, n)
	form(t, c)
	return c
}

// form makes a swarm of machines.
func form(t *testing.T, c *lab.Cluster) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	defer cancel()
	check(t, c.Form(ctx))
	eventually(t, time.Minute, func() error { return allReady(t.Context(), c.Hosts, len(c.Hosts)) })
	rest(t)
}

// rest waits until the agents have done what they do at leisure after their start. They share the
// processors of one machine: ten that begin at once are busy for seconds, which ten machines are not.
func rest(t *testing.T) {
	t.Helper()
	const calm = 0.4 // of a processor, all agents together
	eventually(t, time.Minute, func() error {
		before, err := lab.Listen()
		if err != nil {
			return err
		}
		pause(t, time.Second)
		used, err := before.Used()
		if err == nil && used > calm {
			err = fmt.Errorf("the agents use %.1f processors, not at most %.1f", used, calm)
		}
		return err
	})
}

func check(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func client(t *testing.T, h *lab.Host) *kubernetes.Clientset {
	t.Helper()
	c, err := h.API()
	check(t, err)
	return c
}

// allReady asks each of the hosts whether it sees n nodes, all Ready.
func allReady(ctx context.Context, hosts []*lab.Host, n int) error {
	for _, h := range hosts {
		c, err := h.API()
		if err != nil {
			return err
		}
		nodes, err := c.CoreV1().Nodes().List(ctx, metav1.ListOptions{})
		if err != nil {
			return fmt.Errorf("%s: %w", h.Name, err)
		}
		var ready []string
		for _, node := range nodes.Items {
			if nodeReady(&node) {
				ready = append(ready, node.Name)
			}
		}
		if len(nodes.Items) != n || len(ready) != n {
			return fmt.Errorf("%s sees %d nodes, of them ready: %q; want %d", h.Name, len(nodes.Items), ready, n)
		}
	}
	return nil
}

func nodeReady(n *corev1.Node) bool {
	for _, c := range n.Status.Conditions {
		if c.Type == corev1.NodeReady {
			return c.Status == corev1.ConditionTrue
		}
	}
	return false
}

func podReady(p *corev1.Pod) bool {
	if p.DeletionTimestamp != nil || p.Status.Phase != corev1.PodRunning {
		return false
	}
	for _, c := range p.Status.Conditions {
		if c.Type == corev1.PodReady {
			return c.Status == corev1.ConditionTrue
		}
	}
	return false
}

// eventually polls until ask returns nil, or fails the test with the last error.
func eventually(t *testing.T, within time.Duration, ask func() error) {
	t.Helper()
	if err := poll(t, within, ask); err != nil {
		t.Fatalf("not within %s: %v", within, err)
	}
}

func poll(t *testing.T, within time.Duration, ask func() error) error {
	t.Helper()
	end := time.After(within)
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for {
		err := ask()
		if err == nil {
			return nil
		}
		select {
		case <-tick.C:
		case <-end:
			return err
		}
	}
}

func pause(t *testing.T, d time.Duration) {
	t.Helper()
	select {
	case <-time.After(d):
	case <-t.Context().Done():
		t.Fatal(t.Context().Err())
	}
}

// most is how long to wait for something with a bound: the longest it can be stretched to, and more.
const most = 5

// watch is a measurement that began.
type watch struct {
	begun time.Time
	noise lab.Noise
}

func start(t *testing.T) watch {
	t.Helper()
	noise, err := lab.Listen()
	check(t, err)
	return watch{time.Now(), noise}
}

// within judges a duration that was measured since the watch started.
func (w watch) within(t *testing.T, what string, took, bound time.Duration) {
	t.Helper()
	stretched := time.Duration(float64(bound) * w.noise.Factor())
	t.Logf("%s: %s (bound %s, on this busy machine %s)", what, took.Round(time.Millisecond), bound, stretched.Round(time.Millisecond))
	if took > stretched {
		t.Errorf("%s took %s, at most %s is promised (%s on a machine as busy as this one)", what, took.Round(time.Millisecond), bound, stretched.Round(time.Millisecond))
	}
}

// until waits for something with a bound, and judges how long it took since the watch started.
func (w watch) until(t *testing.T, what string, bound time.Duration, ask func() error) time.Duration {
	t.Helper()
	if err := poll(t, most*bound-time.Since(w.begun), ask); err != nil {
		t.Fatalf("%s: not within %s: %v", what, time.Since(w.begun).Round(time.Millisecond), err)
	}
	took := time.Since(w.begun)
	w.within(t, what, took, bound)
	return took
}

// identical waits until all hosts have answered the same to everything.
func identical(t *testing.T, w watch, bound time.Duration, hosts []*lab.Host) {
	t.Helper()
	var last error
	defer func() {
		if last != nil {
			t.Logf("before that: %v", last)
		}
	}()
	same := lab.CompareNodes(hosts)
	w.until(t, "all nodes are identical", bound, func() error {
		differ, err := same.Differences(t.Context())
		if err == nil && len(differ) > 0 {
			err = fmt.Errorf("%s after the start: %d differences, the first ones:\n%s", time.Since(w.begun).Round(time.Millisecond), len(differ), strings.Join(differ[:min(5, len(differ))], "\n"))
		}
		if err != nil {
			last = err
		}
		return err
	})
}

// settled is identical without a bound of interest.
func settled(t *testing.T, hosts []*lab.Host) {
	t.Helper()
	identical(t, start(t), 30*time.Second, hosts)
}

// kept checks on every host that nothing acknowledged is missing there.
func kept(t *testing.T, load *lab.Load, hosts []*lab.Host, overwritten []lab.Version) {
	t.Helper()
	for _, h := range hosts {
		lost, err := load.Lost(t.Context(), h, overwritten)
		check(t, err)
		for i, l := range lost {
			if i == 10 {
				t.Errorf("%s: and %d more", h.Name, len(lost)-i)
				break
			}
			t.Errorf("%s: lost: %s", h.Name, l)
		}
	}
}

// noneFailed checks that every write that failed at first succeeded when it was tried once more.
func noneFailed(t *testing.T, load *lab.Load) {
	t.Helper()
	failed, retried := load.Failed(), load.Retried()
	odd := slices.DeleteFunc(slices.Clone(retried), func(why string) bool { return strings.Contains(why, ":6443: connect: connection refused") })
	t.Logf("%d writes succeeded the second time; %d of them not because the API was off: %s",
		len(retried), len(odd), strings.Join(odd[:min(10, len(odd))], "\n"))
	if len(failed) > 0 {
		t.Errorf("%d writes failed twice, the first ones:\n%s", len(failed), strings.Join(failed[:min(10, len(failed))], "\n"))
	}
}

func startLoad(t *testing.T, cfg lab.LoadConfig) *lab.Load {
	t.Helper()
	cfg.Namespace = metav1.NamespaceDefault
	if cfg.Timeout == 0 {
		cfg.Timeout = 10 * time.Second
	}
	load, err := lab.StartLoad(t.Context(), cfg)
	check(t, err)
	t.Cleanup(load.Stop)
	return load
}

// acknowledged waits until a load has n more writes than now.
func acknowledged(t *testing.T, load *lab.Load, n int) {
	t.Helper()
	target := load.Count() + n
	eventually(t, time.Minute, func() error {
		if have := load.Count(); have < target {
			failed := load.Failed()
			return fmt.Errorf("%d of %d writes acknowledged; the last that failed: %q", have, target, failed[max(0, len(failed)-3):])
		}
		return nil
	})
}

// rounds says how often to repeat something expensive.
func rounds(all, few int) int {
	if os.Getenv("SWARM_E2E_FULL") == "1" {
		return all
	}
	return few
}
