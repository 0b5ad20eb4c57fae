//go:build e2e

package cluster

import (
	"context"
	"fmt"
	"slices"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/podman-swarm/podman-swarm/test/lab"
)

const ns = metav1.NamespaceDefault

// stateless is a Deployment and a Service.
const stateless = `
apiVersion: apps/v1
kind: Deployment
metadata: {name: web}
spec:
  replicas: %d
  selector: {matchLabels: {app: web}}
  template:
    metadata: {labels: {app: web}}
    spec:
      terminationGracePeriodSeconds: 1
      topologySpreadConstraints:
      - {maxSkew: 1, topologyKey: kubernetes.io/hostname, whenUnsatisfiable: ScheduleAnyway, labelSelector: {matchLabels: {app: web}}}
      containers: [{name: web, image: "localhost/echo:1", ports: [{containerPort: 8080}]}]
---
apiVersion: v1
kind: Service
metadata: {name: web}
spec: {selector: {app: web}, ports: [{port: 80, targetPort: 8080}]}
`

// stateful is a StatefulSet whose pods must never be doubled.
const stateful = `
apiVersion: v1
kind: Service
metadata: {name: db}
spec: {clusterIP: None, selector: {app: db}, ports: [{port: 80}]}
---
apiVersion: apps/v1
kind: StatefulSet
metadata: {name: db}
spec:
  serviceName: db
  replicas: %d
  podManagementPolicy: Parallel
  selector: {matchLabels: {app: db}}
  template:
    metadata: {labels: {app: db}}
    spec:
      terminationGracePeriodSeconds: 1
      topologySpreadConstraints:
      - {maxSkew: 1, topologyKey: kubernetes.io/hostname, whenUnsatisfiable: ScheduleAnyway, labelSelector: {matchLabels: {app: db}}}
      containers: [{name: db, image: "localhost/pause:1"}]
`

// apply runs kubectl on a host.
func apply(t *testing.T, h *lab.Host, manifest string) {
	t.Helper()
	eventually(t, 20*time.Second, func() error { // the namespace gets its service account in a moment
		out, errOut, err := h.Psctl(t.Context(), manifest, "apply", "-f", "-")
		if err != nil {
			return fmt.Errorf("apply on %s: %w: %s%s", h.Name, err, out, errOut)
		}
		return nil
	})
}

// pods are the pods with a label, as a host tells.
func pods(ctx context.Context, h *lab.Host, app string) ([]corev1.Pod, error) {
	c, err := h.API()
	if err != nil {
		return nil, err
	}
	list, err := c.CoreV1().Pods(ns).List(ctx, metav1.ListOptions{LabelSelector: "app=" + app})
	if err != nil {
		return nil, err
	}
	return list.Items, nil
}

// running asks a host whether exactly n pods of app are ready, all of them on the given nodes.
func running(ctx context.Context, via *lab.Host, app string, n int, nodes []*lab.Host) error {
	list, err := pods(ctx, via, app)
	if err != nil {
		return err
	}
	var ready, others []string
	for _, p := range list {
		on := slices.ContainsFunc(nodes, func(h *lab.Host) bool { return h.Name == p.Spec.NodeName })
		if on && podReady(&p) {
			ready = append(ready, p.Name+"@"+p.Spec.NodeName)
		} else {
			others = append(others, fmt.Sprintf("%s@%s %s", p.Name, p.Spec.NodeName, p.Status.Phase))
		}
	}
	if len(ready) != n {
		return fmt.Errorf("%d of %d pods of %s ready: %q; others %q", len(ready), n, app, ready, others)
	}
	return nil
}

// inEndpoints asks whether a Service's ready endpoints are exactly the ready pods of app, n of them.
func inEndpoints(ctx context.Context, via *lab.Host, app string, n int, nodes []*lab.Host) error {
	if err := running(ctx, via, app, n, nodes); err != nil {
		return err
	}
	list, err := pods(ctx, via, app)
	if err != nil {
		return err
	}
	var want, have []string
	for _, p := range list {
		if podReady(&p) && slices.ContainsFunc(nodes, func(h *lab.Host) bool { return h.Name == p.Spec.NodeName }) {
			want = append(want, p.Status.PodIP)
		}
	}
	c, err := via.API()
	if err != nil {
		return err
	}
	slicesOf, err := c.DiscoveryV1().EndpointSlices(ns).List(ctx, metav1.ListOptions{LabelSelector: "kubernetes.io/service-name=" + app})
	if err != nil {
		return err
	}
	for _, s := range slicesOf.Items {
		for _, e := range s.Endpoints {
			if e.Conditions.Ready == nil || *e.Conditions.Ready {
				have = append(have, e.Addresses...)
			}
		}
	}
	slices.Sort(want)
	slices.Sort(have)
	if !slices.Equal(want, have) {
		return fmt.Errorf("endpoints of %s are %q, its pods have %q", app, have, want)
	}
	return nil
}

// onlyOnce waits until the running containers of app on all hosts are exactly those of the pods the
// API knows: what is no longer wanted is gone, and nothing runs twice.
func onlyOnce(t *testing.T, via *lab.Host, app string) {
	t.Helper()
	eventually(t, time.Minute, func() error {
		list, err := pods(t.Context(), via, app)
		if err != nil {
			return err
		}
		var want, have []string
		for _, p := range list {
			if p.Status.Phase == corev1.PodRunning {
				want = append(want, string(p.UID)+"@"+p.Spec.NodeName)
			}
		}
		containers, err := lab.Containers()
		if err != nil {
			return err
		}
		for _, c := range containers {
			if c.Namespace == ns && c.Name == app {
				have = append(have, c.UID+"@"+c.Host)
			}
		}
		slices.Sort(want)
		slices.Sort(have)
		if !slices.Equal(want, have) {
			return fmt.Errorf("containers of %s: %q, pods in the API: %q", app, have, want)
		}
		return nil
	})
	containers, err := lab.Containers()
	check(t, err)
	for _, twice := range lab.Twice(containers, ns) {
		t.Error(twice)
	}
}
