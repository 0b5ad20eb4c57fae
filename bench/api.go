package main

import (
	"context"
	"fmt"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"
	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/intstr"
	"k8s.io/client-go/kubernetes"

	"github.com/podman-swarm/podman-swarm/bench/measure"
)

const (
	clients   = 8
	perClient = 50
	ns        = "default"
	image     = "localhost/pause:1"
	// fakeNode takes pods that must be bound but not run.
	fakeNode = "bench-fake"
)

// requests measures creates and gets at 8 clients.
func (b *bench) requests(ctx context.Context) error {
	c, err := b.swarm.Clientset()
	if err != nil {
		return err
	}
	if err := makeFakeNode(ctx, c); err != nil {
		return err
	}
	for _, kind := range []struct {
		name string
		call func(ctx context.Context, name string) error
	}{
		{"ConfigMap creates", func(ctx context.Context, name string) error {
			_, err := c.CoreV1().ConfigMaps(ns).Create(ctx, &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Name: name}, Data: map[string]string{"k": "v"}}, metav1.CreateOptions{})
			return err
		}},
		{"Service creates", func(ctx context.Context, name string) error {
			_, err := c.CoreV1().Services(ns).Create(ctx, service(name), metav1.CreateOptions{})
			return err
		}},
		{"Pod creates", func(ctx context.Context, name string) error {
			_, err := c.CoreV1().Pods(ns).Create(ctx, pod(name, map[string]string{"bench": "nowhere"}), metav1.CreateOptions{})
			return err
		}},
		{"Pod GETs", func(ctx context.Context, name string) error {
			_, err := c.CoreV1().Pods(ns).Get(ctx, name, metav1.GetOptions{})
			return err
		}},
	} {
		rate, p50, p99, err := load(ctx, kind.call)
		if err != nil {
			return fmt.Errorf("%s: %w", kind.name, err)
		}
		budget := ""
		if kind.name == "ConfigMap creates" {
			budget = "write p99 10 ms on 3 nodes (next release)"
		}
		b.table.Add(kind.name+", 8 clients", rate, "/s", budget, fmt.Sprintf("p50 %.1f ms, p99 %.1f ms", p50, p99))
	}
	for _, sweep := range []func() error{
		func() error {
			return c.CoreV1().Pods(ns).DeleteCollection(ctx, metav1.DeleteOptions{}, metav1.ListOptions{})
		},
		func() error {
			return c.CoreV1().ConfigMaps(ns).DeleteCollection(ctx, metav1.DeleteOptions{}, metav1.ListOptions{FieldSelector: "metadata.name!=kube-root-ca.crt"})
		},
		func() error {
			for client := range clients {
				for i := range perClient {
					if err := c.CoreV1().Services(ns).Delete(ctx, fmt.Sprintf("bench-%d-%d", client, i), metav1.DeleteOptions{}); err != nil {
						return err
					}
				}
			}
			return nil
		},
	} {
		if err := sweep(); err != nil {
			return err
		}
	}
	return nil
}

// load calls from several clients at once and returns calls per second and latencies in ms.
func load(ctx context.Context, call func(ctx context.Context, name string) error) (rate, p50, p99 float64, err error) {
	var mu sync.Mutex
	var took []float64
	var wg sync.WaitGroup
	begin := time.Now()
	for client := range clients {
		wg.Go(func() {
			for i := range perClient {
				start := time.Now()
				e := call(ctx, fmt.Sprintf("bench-%d-%d", client, i))
				mu.Lock()
				took = append(took, measure.MS(time.Since(start)))
				if e != nil {
					err = e
				}
				mu.Unlock()
			}
		})
	}
	wg.Wait()
	return float64(len(took)) / time.Since(begin).Seconds(), measure.Median(took), measure.Quantile(took, 0.99), err
}

func service(name string) *corev1.Service {
	return &corev1.Service{
		ObjectMeta: metav1.ObjectMeta{Name: name},
		Spec:       corev1.ServiceSpec{Selector: map[string]string{"app": name}, Ports: []corev1.ServicePort{{Port: 80, TargetPort: intstr.FromInt32(8080)}}},
	}
}

func podSpec(selector map[string]string) corev1.PodSpec {
	grace, no := int64(1), false
	return corev1.PodSpec{
		NodeSelector: selector, TerminationGracePeriodSeconds: &grace, AutomountServiceAccountToken: &no,
		Containers: []corev1.Container{{Name: "c", Image: image}},
	}
}

func pod(name string, selector map[string]string) *corev1.Pod {
	return &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Name: name, Labels: map[string]string{"bench": "yes"}}, Spec: podSpec(selector)}
}

func deployment(name string, replicas int32, selector map[string]string) *appsv1.Deployment {
	labels := map[string]string{"app": name}
	return &appsv1.Deployment{
		ObjectMeta: metav1.ObjectMeta{Name: name},
		Spec: appsv1.DeploymentSpec{
			Replicas: &replicas, Selector: &metav1.LabelSelector{MatchLabels: labels},
			Template: corev1.PodTemplateSpec{ObjectMeta: metav1.ObjectMeta{Labels: labels}, Spec: podSpec(selector)},
		},
	}
}

// makeFakeNode makes a node that is ready for pods and never runs them.
func makeFakeNode(ctx context.Context, c kubernetes.Interface) error {
	nodes := c.CoreV1().Nodes()
	n := &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: fakeNode, Labels: map[string]string{"bench": "fake"}}}
	if _, err := nodes.Create(ctx, n, metav1.CreateOptions{}); err != nil {
		return err
	}
	size := `{"cpu": "1000", "memory": "1Ti", "pods": "5000"}`
	status := fmt.Sprintf(`{"status": {"capacity": %s, "allocatable": %s, "conditions": [{"type": "Ready", "status": "True", "reason": "Bench"}]}}`, size, size)
	if _, err := nodes.Patch(ctx, fakeNode, types.MergePatchType, []byte(status), metav1.PatchOptions{}, "status"); err != nil {
		return err
	}
	_, err := nodes.Patch(ctx, fakeNode, types.MergePatchType, []byte(`{"spec": {"taints": null}}`), metav1.PatchOptions{})
	return err
}

// scheduling measures a Deployment of 100 replicas from its creation to the last pod bound.
func (b *bench) scheduling(ctx context.Context) error {
	c, err := b.swarm.Clientset()
	if err != nil {
		return err
	}
	var took []float64
	for round := range 3 {
		name := fmt.Sprintf("hundred-%d", round)
		begin := time.Now()
		if _, err := c.AppsV1().Deployments(ns).Create(ctx, deployment(name, 100, map[string]string{"bench": "fake"}), metav1.CreateOptions{}); err != nil {
			return err
		}
		if err := watchPods(ctx, c, "app="+name, func(p *corev1.Pod) bool { return p.Spec.NodeName != "" }, 100); err != nil {
			return err
		}
		took = append(took, measure.MS(time.Since(begin)))
		if err := c.AppsV1().Deployments(ns).Delete(ctx, name, metav1.DeleteOptions{}); err != nil {
			return err
		}
		if err := forceDelete(ctx, c, "app="+name); err != nil {
			return err
		}
	}
	b.table.Add("100 replicas to all bound", measure.Median(took), "ms", "500 ms", "median of 3, on a node that only takes bindings")
	return nil
}

// watchPods returns when `want` pods with the label have met the condition.
func watchPods(ctx context.Context, c kubernetes.Interface, selector string, ok func(*corev1.Pod) bool, want int) error {
	ctx, cancel := context.WithTimeout(ctx, 3*time.Minute)
	defer cancel()
	w, err := c.CoreV1().Pods(ns).Watch(ctx, metav1.ListOptions{LabelSelector: selector})
	if err != nil {
		return err
	}
	defer w.Stop()
	met := map[string]bool{}
	for e := range w.ResultChan() {
		if p, isPod := e.Object.(*corev1.Pod); isPod && ok(p) {
			if met[p.Name] = true; len(met) == want {
				return nil
			}
		}
	}
	return fmt.Errorf("%d of %d pods: %w", len(met), want, context.Cause(ctx))
}

// forceDelete removes pods of the fake node, which no agent confirms, and waits until they are gone.
func forceDelete(ctx context.Context, c kubernetes.Interface, selector string) error {
	now := int64(0)
	for {
		opts := metav1.ListOptions{LabelSelector: selector}
		if err := c.CoreV1().Pods(ns).DeleteCollection(ctx, metav1.DeleteOptions{GracePeriodSeconds: &now}, opts); err != nil {
			return err
		}
		list, err := c.CoreV1().Pods(ns).List(ctx, opts)
		if err != nil || len(list.Items) == 0 {
			return err
		}
		if err := measure.Sleep(ctx, 100*time.Millisecond); err != nil {
			return err
		}
	}
}

// loaded stores 1,000 pods, 200 Deployments and 200 Services and reads the memory again.
func (b *bench) loaded(ctx context.Context) error {
	c, err := b.swarm.Clientset()
	if err != nil {
		return err
	}
	g, gctx := errgroup.WithContext(ctx)
	g.SetLimit(clients)
	for i := range 1000 {
		g.Go(func() error { return store(gctx, c, fmt.Sprintf("stored-%d", i), i%5 == 0) })
	}
	if err := g.Wait(); err != nil {
		return err
	}
	if err := measure.Sleep(ctx, b.idle); err != nil {
		return err
	}
	total, _, err := nodeUse(b.swarm)
	if err != nil {
		return err
	}
	b.table.Add("loaded memory, RSS", total.RSS, "MB", "", "1,000 pods, 200 Deployments, 200 Services stored")
	b.table.Add("loaded memory, anonymous", total.Anon, "MB", "", "Docker Swarm's manager after churn: 168/80")
	return nil
}

// store creates a pod that is never run, and a Deployment and a Service if asked.
func store(ctx context.Context, c kubernetes.Interface, name string, all bool) error {
	fake := map[string]string{"bench": "fake"}
	if _, err := c.CoreV1().Pods(ns).Create(ctx, pod(name, fake), metav1.CreateOptions{}); err != nil || !all {
		return err
	}
	if _, err := c.AppsV1().Deployments(ns).Create(ctx, deployment(name, 0, fake), metav1.CreateOptions{}); err != nil {
		return err
	}
	_, err := c.CoreV1().Services(ns).Create(ctx, service(name), metav1.CreateOptions{})
	return err
}
