package agent

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"sync"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/informers"
	"k8s.io/client-go/tools/cache"

	"golang.org/x/sync/errgroup"

	"github.com/podman-swarm/podman-swarm/internal/agent/image"
	"github.com/podman-swarm/podman-swarm/internal/agent/ledger"
	"github.com/podman-swarm/podman-swarm/internal/agent/machine"
	"github.com/podman-swarm/podman-swarm/internal/agent/objects"
	"github.com/podman-swarm/podman-swarm/internal/agent/plan"
	"github.com/podman-swarm/podman-swarm/internal/agent/worker"
	"github.com/podman-swarm/podman-swarm/internal/podman"
	"github.com/podman-swarm/podman-swarm/internal/podspec"
	"github.com/podman-swarm/podman-swarm/internal/probe"
	"github.com/podman-swarm/podman-swarm/internal/volume"
)

// Agent runs the pods of one node.
type Agent struct {
	cfg    Config
	boot   string
	booted bool // this is the first agent since the machine booted
	host   *worker.Host
	info   podman.Info
	keeper *machine.Keeper
	pods   cache.Indexer
	doubts *doubts
	ended  chan struct{} // capacity 1: see nudge

	mu      sync.Mutex
	workers map[types.UID]*worker.Worker
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
	boot, bootTime, booted, err := bootID(cfg.RunDir)
	if err != nil {
		return nil, err
	}
	a := &Agent{cfg: cfg, boot: boot, booted: booted, workers: map[types.UID]*worker.Worker{}, doubts: newDoubts(), ended: make(chan struct{}, 1)}
	a.keeper = machine.NewKeeper(a.keeperConfig())
	a.host = &worker.Host{
		DataDir: cfg.DataDir, NodeIPs: cfg.NodeIPs, ClusterDomain: cfg.ClusterDomain, ClusterDNS: cfg.ClusterDNS,
		Boot: boot, Client: cfg.Client, Runtime: cfg.Runtime, Network: cfg.Network, Volumes: cfg.Volumes,
		Ledger: ledger.New(boot, bootTime, cfg.Now), Groups: ledger.NewGroups(), Images: image.New(cfg.Runtime, cfg.Now),
		Objects: objects.New(cfg.Client, a.keeper.Allocatable, cfg.Now), Slots: make(chan struct{}, cfg.Parallel),
		Prober: probe.New(probe.Config{Exec: a.probeExec, Dial: cfg.Network.DialContext, Log: cfg.Log}),
		Fence:  cfg.Fence, Facts: a.facts, Allocatable: a.keeper.Allocatable, Trouble: a.trouble, Launched: a.launched, Namesake: a.namesake, Now: cfg.Now, Log: cfg.Log,
	}
	if cfg.Predecessors != nil {
		a.host.Wait = func(pod *corev1.Pod) string { return cfg.Predecessors.Wait(pod, a.runs) }
	}
	a.host.Probes = probe.NewWorkers(probe.WorkersConfig{
		Prober: a.host.Prober, OnTransition: a.onTransition, OnEvent: a.onProbeEvent, Log: cfg.Log,
	})
	return a, nil
}

func (a *Agent) keeperConfig() machine.KeeperConfig {
	return machine.KeeperConfig{
		Description: machine.Description{
			Name: a.cfg.NodeName, IPs: ipStrings(a.cfg.NodeIPs), PodCIDR: a.cfg.PodCIDR.String(), MaxPods: a.cfg.MaxPods,
			StreamPort: a.cfg.StreamPort, Version: a.cfg.KubeletVersion, Labels: a.cfg.Labels,
		},
		DataDir: a.cfg.DataDir, Client: a.cfg.Client, Ping: a.cfg.Runtime.Ping, Socket: a.cfg.Socket,
		Booted: a.booted, Boot: a.boot, Event: a.nodeEvent, Recovered: a.recovered, Now: a.cfg.Now, Log: a.cfg.Log,
	}
}

func (a *Agent) nodeEvent(kind, reason, message string) {
	a.host.Events.Event(&corev1.ObjectReference{
		Kind: "Node", APIVersion: "v1", Name: a.cfg.NodeName, UID: types.UID(a.cfg.NodeName),
	}, kind, reason, message)
}

// Run works until ctx ends. Containers run on without it.
func (a *Agent) Run(ctx context.Context) error {
	recorder, closeEvents := newRecorder(ctx, a.cfg.Client, a.cfg.NodeName)
	a.host.Events = recorder
	defer closeEvents()
	g, ctx := errgroup.WithContext(ctx)
	factory, services := a.informers() // workers live as long as Run
	factory.Start(ctx.Done())
	services.Start(ctx.Done())
	defer factory.Shutdown()
	defer services.Shutdown()
	g.Go(func() error { return a.keeper.Run(ctx) })
	g.Go(func() error { return a.host.Probes.Run(ctx) })
	g.Go(func() error { return a.watchFence(ctx) })
	g.Go(func() error { return a.watchPredecessors(ctx) })
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
	_, _ = informer.AddEventHandler(cache.ResourceEventHandlerFuncs{
		AddFunc:    func(obj any) { a.onPod(obj) },
		UpdateFunc: a.onChange,
		DeleteFunc: func(obj any) { a.onGone(obj) },
	})
	services = informers.NewSharedInformerFactoryWithOptions(a.cfg.Client, 0, informers.WithTransform(trimService))
	a.host.Objects.Services = services.Core().V1().Services().Lister()
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

// onChange takes a newer version. After a list (as after a merge, or a restore) it may be another pod that took
// this one's name: then the former one is gone, and nobody says so again.
func (a *Agent) onChange(was, obj any) {
	before, ok := was.(*corev1.Pod)
	if after, is := obj.(*corev1.Pod); ok && is && before.UID != after.UID {
		a.onGone(before)
	}
	a.onPod(obj)
}

func (a *Agent) onPod(obj any) {
	pod, ok := obj.(*corev1.Pod)
	if !ok {
		return
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	if w := a.workers[pod.UID]; w != nil {
		w.Update(pod)
		return
	}
	if a.life != nil && a.present(pod) {
		a.hire(worker.New(a.host, pod.UID, pod))
	}
}

// present tells whether the API had this very pod when it was last heard of. What is told of one comes later,
// and may be of one that has been replaced since; its end is told next.
func (a *Agent) present(pod *corev1.Pod) bool {
	obj, ok, err := a.pods.GetByKey(pod.Namespace + "/" + pod.Name)
	now, is := obj.(*corev1.Pod)
	return err == nil && ok && is && now.UID == pod.UID
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
		w.Vanish(pod)
	}
}

// hire has a worker run. The caller holds mu; life is set.
func (a *Agent) hire(w *worker.Worker) {
	uid := w.UID()
	a.workers[uid] = w
	life := a.life
	a.running.Go(func() {
		w.Run(life)
		if life.Err() != nil {
			return // it was told to stop, its pod was not: nobody may take that for its end
		}
		a.mu.Lock()
		delete(a.workers, uid)
		a.mu.Unlock()
		a.pokeWaiting() // one of its name may wait for this
		a.nudge()
	})
}

// namesake tells, for a user, which pod that had this one's name before has not ended here; empty: none. As with
// a kubelet the sandboxes of one full name never overlap: whoever writes a file, or announces itself, by that
// name relies on it. The API has one pod of a name, and those it has no more wait for nobody: no two wait for
// each other.
func (a *Agent) namesake(pod *corev1.Pod) string {
	a.mu.Lock()
	defer a.mu.Unlock()
	for uid, w := range a.workers {
		if uid != pod.UID && w.Lingers(pod.Namespace, pod.Name) {
			return fmt.Sprintf("waits until pod UID %s, which had this name before, has ended on this node", uid)
		}
	}
	return ""
}

// begin starts a worker for every pod the API has, and one for every leftover of one it has not.
// Both lists are complete here: silence alone never stops a container.
func (a *Agent) begin(ctx context.Context) {
	defer a.nudge()
	left := a.leftovers(ctx)
	a.mu.Lock()
	defer a.mu.Unlock()
	a.life = ctx
	for _, obj := range a.pods.List() {
		pod, ok := obj.(*corev1.Pod)
		if !ok || a.workers[pod.UID] != nil {
			continue
		}
		w := worker.New(a.host, pod.UID, pod)
		if left[pod.UID] {
			w.Expect()
		}
		a.hire(w) // workers live as long as Run
		delete(left, pod.UID)
	}
	for uid := range left {
		if a.workers[uid] == nil {
			a.cfg.Log.Info("removing what is left of a pod the API does not have", "pod", string(uid))
			a.hire(worker.Leftover(a.host, uid, a.host.Ledger.Pod(uid))) // as above
		}
	}
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
			a.host.Ledger.Update(t.Target.ContainerID, func(e *ledger.Entry) { e.Failed = failed })
		}
	}
	a.poke(t.Target.Pod.UID)
}

func (a *Agent) onProbeEvent(e probe.Event) {
	a.host.Events.Event(plan.ContainerRef(e.Target.Pod, e.Target.Container.Name), corev1.EventTypeWarning, e.Reason, e.Message)
}

// poke has a pod's worker look again.
func (a *Agent) poke(uid types.UID) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if w := a.workers[uid]; w != nil {
		w.Poke()
	}
}

func (a *Agent) pokeAll() {
	a.mu.Lock()
	defer a.mu.Unlock()
	for _, w := range a.workers {
		w.Poke()
	}
}

// pokeWaiting pokes those that wait for another pod's end.
func (a *Agent) pokeWaiting() {
	a.mu.Lock()
	defer a.mu.Unlock()
	for _, w := range a.workers {
		if w.Waits() {
			w.Poke()
		}
	}
}

func (a *Agent) reconsiderAll() {
	a.mu.Lock()
	defer a.mu.Unlock()
	for _, w := range a.workers {
		w.Reconsider()
	}
}

func (a *Agent) facts() podspec.Facts {
	return podspec.Facts{
		Podman: a.info, Node: a.cfg.NodeName, DataDir: a.cfg.DataDir, BootID: a.boot, SeccompDir: seccompDir(a.cfg.DataDir), Sysctls: a.cfg.PodSysctls,
	}
}

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
		Dir: a.cfg.DataDir + "/pods", Sources: a.host.Objects, Rootless: a.info.Rootless, Log: a.cfg.Log,
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
