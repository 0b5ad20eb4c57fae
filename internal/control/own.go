package control

import (
	"context"
	"fmt"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/client-go/kubernetes/scheme"
	typedcorev1 "k8s.io/client-go/kubernetes/typed/core/v1"
	"k8s.io/client-go/tools/record"
	"k8s.io/kubernetes/cmd/kube-controller-manager/app"
	"k8s.io/kubernetes/cmd/kube-controller-manager/names"
	"k8s.io/kubernetes/pkg/controller/podgc"

	"github.com/podman-swarm/podman-swarm/internal/control/duplicate"
	"github.com/podman-swarm/podman-swarm/internal/control/liveness"
)

const (
	// orphansEvery is how often pods of Nodes that do not exist are looked for, and orphanAfter how long
	// such a Node has time to appear. Upstream's 20 s and 40 s wait for kubelets that register anew.
	orphansEvery = 2 * time.Second
	orphanAfter  = time.Second
)

// own is a controller of ours: a name and a function that blocks until its context ends.
type own struct {
	name string
	run  func(context.Context)
}

// Name names the controller in logs and metrics.
func (o own) Name() string { return o.name }

// Run blocks until ctx ends.
func (o own) Run(ctx context.Context) { o.run(ctx) }

// newOwn builds the controllers that upstream has no like of.
func newOwn(ctx context.Context, c Config, shared app.ControllerContext) ([]app.Controller, error) {
	var bench *liveness.Bench
	if c.Liveness != nil {
		rules := liveness.DefaultRules()
		if c.MinorityDelay > 0 {
			rules.MinorityDelay = c.MinorityDelay
		}
		bench = liveness.NewBench(rules, c.Liveness, shared.InformerFactory.Core().V1().Nodes().Lister(), time.Now)
	}
	taints, err := newTaintController(shared, bench, c.Log)
	if err != nil {
		return nil, fmt.Errorf("build %s: %w", taints.Name(), err)
	}
	out := []app.Controller{taints}
	if bench == nil {
		return out, nil
	}
	recorder, events, err := newRecorder(ctx, shared, "node-controller")
	if err != nil {
		return nil, err
	}
	client, err := shared.NewClient("node-controller") // as taintController
	if err != nil {
		return nil, fmt.Errorf("make client: %w", err)
	}
	nodes, err := liveness.New(liveness.Config{
		Client: client, Informers: shared.InformerFactory, Bench: bench, Lost: c.Lost, Events: recorder, Log: c.Log, Now: time.Now,
	})
	if err != nil {
		return nil, fmt.Errorf("build %s: %w", nodes.Name(), err)
	}
	itself := clients{rest: c.REST} // what follows writes what no role of upstream's lets one account write
	if client, err = itself.client("liveness"); err != nil {
		return nil, err
	}
	endpoints, err := newEndpointsController(client, shared.InformerFactory.Core().V1().Nodes().Informer(), c.Liveness, c.Log)
	if err != nil {
		return nil, fmt.Errorf("build %s: %w", endpoints.Name(), err)
	}
	duplicates, err := duplicate.New(duplicate.Config{Client: client, Informers: shared.InformerFactory, Events: recorder, Log: c.Log})
	if err != nil {
		return nil, fmt.Errorf("build %s: %w", duplicates.Name(), err)
	}
	watch := own{name: "liveness-watch", run: func(ctx context.Context) {
		bench.Watch(ctx, func() { nodes.Review(); taints.review(); endpoints.review() })
	}}
	return append(out, events, nodes, watch, endpoints, duplicates), nil
}

// newRecorder returns a recorder of events that acts under a service account of kube-system, and what
// must run for it to write.
func newRecorder(ctx context.Context, shared app.ControllerContext, account string) (record.EventRecorder, app.Controller, error) {
	client, err := shared.NewClient(account)
	if err != nil {
		return nil, nil, fmt.Errorf("make client: %w", err)
	}
	broadcaster := record.NewBroadcaster(record.WithContext(ctx))
	sink := &typedcorev1.EventSinkImpl{Interface: client.CoreV1().Events(corev1.NamespaceAll)}
	run := func(ctx context.Context) {
		defer broadcaster.Shutdown()
		broadcaster.StartRecordingToSink(sink)
		<-ctx.Done()
	}
	return broadcaster.NewRecorder(scheme.Scheme, corev1.EventSource{Component: account}), own{account + "-events", run}, nil
}

// newPodGC is upstream's, but finds the pods of a Node that was deleted within seconds.
func newPodGC(ctx context.Context, _ clients, shared app.ControllerContext) (app.Controller, error) {
	client, err := shared.NewClient("pod-garbage-collector")
	if err != nil {
		return nil, fmt.Errorf("make client: %w", err)
	}
	core := shared.InformerFactory.Core().V1()
	gc := podgc.NewPodGCInternal(ctx, client, core.Pods(), core.Nodes(),
		int(shared.ComponentConfig.PodGCController.TerminatedPodGCThreshold), orphansEvery, orphanAfter)
	return own{name: names.PodGarbageCollectorController, run: gc.Run}, nil
}
