package agent

import (
	"context"
	"errors"
	"net/netip"
	"sync"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/informers"
	"k8s.io/client-go/tools/cache"
	"k8s.io/client-go/tools/record"

	"golang.org/x/sync/errgroup"

	"github.com/podman-swarm/podman-swarm/internal/agent/image"
	"github.com/podman-swarm/podman-swarm/internal/agent/plan"
	"github.com/podman-swarm/podman-swarm/internal/podman"
	"github.com/podman-swarm/podman-swarm/internal/podspec"
	"github.com/podman-swarm/podman-swarm/internal/probe"
	"github.com/podman-swarm/podman-swarm/internal/volume"
)

// Agent runs the pods of one node.
type Agent struct {
	cfg     Config
	boot    string
	booted  bool // this is the first agent since the machine booted
	info    podman.Info
	store   *store
	groups  *groups
	images  *image.Images
	objects *objects
	prober  *probe.Prober
	probes  *probe.Workers
	slots   chan struct{}
	node    *node

	events record.EventRecorder
	pods   cache.Indexer

	mu      sync.Mutex
	workers map[types.UID]*worker
	running sync.WaitGroup
	// life is nil until workers may start: after the first list of pods and of containers.
	life context.Context //nolint:containedctx // that of Run
}

// New prepares an agent; it does no I/O beyond the boot marker.
func New(cfg Config) (*Agent, error) {
	cfg = cfg.withDefaults()
	if len(cfg.NodeIPs) == 0 {
		return nil, errors.New("agent: the node has no address")
	}
	boot, booted, err := bootID(cfg.RunDir)
	if err != nil {
		return nil, err
	}
	a := &Agent{
		cfg: cfg, boot: boot, booted: booted, groups: newGroups(), slots: make(chan struct{}, cfg.Parallel),
		workers: map[types.UID]*worker{}, store: newStore(boot, cfg.Now), images: image.New(cfg.Runtime, cfg.Now),
	}
	a.node = newNode(a)
	a.objects = newObjects(cfg.Client, a.allocatable, cfg.Now)
	a.prober = probe.New(probe.Config{Exec: a.probeExec, Dial: cfg.Network.DialContext, Log: cfg.Log})
	a.probes = probe.NewWorkers(probe.WorkersConfig{
		Prober: a.prober, OnTransition: a.onTransition, OnEvent: a.onProbeEvent, Log: cfg.Log,
	})
	return a, nil
}

// Run works until ctx ends. Containers run on without it.
func (a *Agent) Run(ctx context.Context) error {
	recorder, closeEvents := newRecorder(ctx, a.cfg.Client, a.cfg.NodeName)
	a.events = recorder
	defer closeEvents()
	g, ctx := errgroup.WithContext(ctx)
	factory, services := a.informers()
	factory.Start(ctx.Done())
	services.Start(ctx.Done())
	defer factory.Shutdown()
	defer services.Shutdown()
	g.Go(func() error { return a.node.run(ctx) })
	g.Go(func() error { return a.probes.Run(ctx) })
	g.Go(func() error { return a.serve(ctx) })
	g.Go(func() error {
		if !cache.WaitForCacheSync(ctx.Done(), a.synced(factory, services)...) {
			return ctx.Err()
		}
		if err := a.meet(ctx); err != nil {
			return err
		}
		a.begin(ctx)
		return a.observe(ctx)
	})
	err := g.Wait()
	a.running.Wait()
	if errors.Is(err, context.Canceled) {
		return nil
	}
	return err
}

// informers makes those of this node's pods and of all Services.
func (a *Agent) informers() (pods, services informers.SharedInformerFactory) {
	pods = informers.NewSharedInformerFactoryWithOptions(a.cfg.Client, 0,
		informers.WithTweakListOptions(func(o *metav1.ListOptions) {
			o.FieldSelector = fields.OneTermEqualSelector("spec.nodeName", a.cfg.NodeName).String()
		}), informers.WithTransform(trimPod))
	informer := pods.Core().V1().Pods().Informer()
	a.pods = informer.GetIndexer()
	// The informer is not shared, so adding the handler before its start cannot fail.
	_, _ = informer.AddEventHandler(cache.ResourceEventHandlerFuncs{ //nolint:errcheck // see above
		AddFunc:    func(obj any) { a.onPod(obj) },
		UpdateFunc: func(_, obj any) { a.onPod(obj) },
		DeleteFunc: func(obj any) { a.onGone(obj) },
	})
	services = informers.NewSharedInformerFactoryWithOptions(a.cfg.Client, 0, informers.WithTransform(trimService))
	a.objects.services = services.Core().V1().Services().Lister()
	services.Core().V1().Services().Informer()
	return pods, services
}

func (a *Agent) synced(factories ...informers.SharedInformerFactory) []cache.InformerSynced {
	return []cache.InformerSynced{
		factories[0].Core().V1().Pods().Informer().HasSynced,
		factories[1].Core().V1().Services().Informer().HasSynced,
	}
}

// trimPod drops what nobody here reads.
func trimPod(obj any) (any, error) {
	if p, ok := obj.(*corev1.Pod); ok {
		p.ManagedFields = nil
	}
	return obj, nil
}

// trimService keeps what becomes environment variables.
func trimService(obj any) (any, error) {
	if s, ok := obj.(*corev1.Service); ok {
		return &corev1.Service{
			ObjectMeta: metav1.ObjectMeta{Namespace: s.Namespace, Name: s.Name, UID: s.UID, ResourceVersion: s.ResourceVersion},
			Spec:       corev1.ServiceSpec{ClusterIP: s.Spec.ClusterIP, Ports: s.Spec.Ports},
		}, nil
	}
	return obj, nil
}

func (a *Agent) onPod(obj any) {
	pod, ok := obj.(*corev1.Pod)
	if !ok {
		return
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	if w := a.workers[pod.UID]; w != nil {
		w.update(pod)
		return
	}
	if a.life != nil {
		a.hire(newWorker(a, pod.UID, pod))
	}
}

func (a *Agent) onGone(obj any) {
	if d, ok := obj.(cache.DeletedFinalStateUnknown); ok {
		obj = d.Obj
	}
	pod, ok := obj.(*corev1.Pod)
	if !ok {
		return
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	if w := a.workers[pod.UID]; w != nil {
		w.vanish()
	}
}

// hire has a worker run. The caller holds mu; life is set.
func (a *Agent) hire(w *worker) {
	uid := w.uid
	a.workers[uid] = w
	life := a.life
	a.running.Go(func() {
		w.run(life)
		a.mu.Lock()
		defer a.mu.Unlock()
		if a.workers[uid] == w {
			delete(a.workers, uid)
		}
	})
}

// begin starts a worker for every pod the API has, and one for every leftover of one it has not.
// Both lists are complete here: silence alone never stops a container.
func (a *Agent) begin(ctx context.Context) {
	left := a.leftovers(ctx)
	a.mu.Lock()
	defer a.mu.Unlock()
	a.life = ctx
	for _, obj := range a.pods.List() {
		pod, ok := obj.(*corev1.Pod)
		if !ok || a.workers[pod.UID] != nil {
			continue
		}
		w := newWorker(a, pod.UID, pod)
		w.known = left[pod.UID]
		a.hire(w)
		delete(left, pod.UID)
	}
	for uid := range left {
		if a.workers[uid] == nil {
			a.cfg.Log.Info("removing what is left of a pod the API does not have", "pod", string(uid))
			w := newWorker(a, uid, nil)
			w.gone, w.known = true, true
			a.hire(w)
		}
	}
}

// health gathers what the probes know.
func (a *Agent) health(uid types.UID, pod *corev1.Pod, containers []plan.Container) map[string]plan.Health {
	out := make(map[string]plan.Health, len(containers))
	for i := range containers {
		c := &containers[i]
		spec := specOf(pod, c.Name)
		if c.State != plan.Running || spec == nil {
			continue
		}
		e, ok := a.store.get(c.ID)
		if !ok {
			continue
		}
		out[c.ID] = plan.Health{
			Started: a.probes.Started(uid, spec, c.ID), Ready: a.probes.Ready(uid, spec, c.ID), Failed: e.failed,
		}
	}
	return out
}

func (a *Agent) onTransition(t probe.Transition) {
	if t.Result == probe.Failure {
		failed := plan.NoneFailed
		switch t.Kind {
		case probe.Liveness:
			failed = plan.LivenessFailed
		case probe.Startup:
			failed = plan.StartupFailed
		case probe.Readiness:
		}
		if failed != plan.NoneFailed {
			a.store.update(t.Target.ContainerID, func(e *entry) { e.failed = failed })
		}
	}
	a.poke(t.Target.Pod.UID)
}

func (a *Agent) onProbeEvent(e probe.Event) {
	a.events.Event(containerRef(e.Target.Pod, e.Target.Container.Name), corev1.EventTypeWarning, e.Reason, e.Message)
}

// poke has a pod's worker look again.
func (a *Agent) poke(uid types.UID) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if w := a.workers[uid]; w != nil {
		w.poke()
	}
}

func (a *Agent) pokeAll() {
	a.mu.Lock()
	defer a.mu.Unlock()
	for _, w := range a.workers {
		w.poke()
	}
}

func (a *Agent) host() podspec.Facts {
	return podspec.Facts{Podman: a.info, Node: a.cfg.NodeName, BootID: a.boot, SeccompDir: seccompDir(a.cfg.DataDir)}
}

func (a *Agent) hostIPs() []string { return ipStrings(a.cfg.NodeIPs) }

func ipStrings(ips []netip.Addr) []string {
	out := make([]string, 0, len(ips))
	for _, ip := range ips {
		out = append(out, ip.String())
	}
	return out
}

// volumes makes the volumes once Podman has told whether it is rootless.
func (a *Agent) volumes() Volumes {
	return volume.New(volume.Config{
		Dir: a.cfg.DataDir + "/pods", Sources: a.objects, Rootless: a.info.Rootless, Log: a.cfg.Log,
	})
}

var errNotOurs = errors.New("not a container of this node")

// sleep waits; false when ctx ended first.
func sleep(ctx context.Context, d time.Duration) bool {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return true
	case <-ctx.Done():
		return false
	}
}
