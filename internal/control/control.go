package control

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"github.com/go-logr/logr"
	"k8s.io/apimachinery/pkg/util/wait"
	"k8s.io/client-go/discovery/cached/memory"
	"k8s.io/client-go/metadata"
	"k8s.io/client-go/metadata/metadatainformer"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/restmapper"
	"k8s.io/controller-manager/pkg/informerfactory"
	"k8s.io/klog/v2"
	"k8s.io/kubernetes/cmd/kube-controller-manager/app"
	"k8s.io/kubernetes/cmd/kube-controller-manager/names"
	"k8s.io/kubernetes/pkg/controller/garbagecollector"

	"github.com/podman-swarm/podman-swarm/internal/control/liveness"
	"github.com/podman-swarm/podman-swarm/internal/tap"
)

const (
	// resync is how often upstream's controllers look at every object again without a change.
	resync = 12 * time.Hour
	// discoveryPeriod is how often new kinds (a CRD just made) are looked for.
	discoveryPeriod = 30 * time.Second
	// stopTimeout bounds the wait for controllers to end. Upstream waits 10 s; ours share a machine
	// that may be busy, and their process has more to lose.
	stopTimeout = 30 * time.Second
	// quiet is how much upstream's messages are lowered: what they call information ("Caches are
	// synced") is ours at debug level. Errors stay errors.
	quiet = 4
)

// ErrStillRunning is returned by Run when some controller did not end in time. The process should
// end then: two runs at once would contradict each other.
var ErrStillRunning = errors.New("controllers are still running")

// Config is what the controllers need.
type Config struct {
	// REST reaches the API server of this very node as a member of system:masters. Controllers
	// compare the resourceVersions of their writes with those of the informers, so both must come
	// from one server. The user must be allowed to impersonate.
	REST *rest.Config
	// Informers are the process's.
	Informers *tap.Source
	// CAFile holds every authority that is believed, in PEM: it is published in every namespace as
	// kube-root-ca.crt. IssuerFile and CAKeyFile are the one that signs certificate requests. All are
	// read when the controllers start.
	CAFile, IssuerFile, CAKeyFile string
	// SAKeyFile is the private key in PEM that signs the tokens kept in Secrets.
	SAKeyFile string
	// Log receives what the controllers have to say.
	Log *slog.Logger
	// Liveness is who is alive; nil: this node is the only one.
	Liveness Liveness
	// Lost are the pods that merges took from the API while they may still run; nil: there are none.
	Lost liveness.Lost
	// MinorityDelay is how long a side with less than half of the nodes waits before it replaces pods
	// of unreachable ones; 0 means a minute.
	MinorityDelay time.Duration
	// Started, if not nil, is closed when all controllers have been started.
	Started chan<- struct{}
}

// Liveness tells who is alive; gossip does.
type Liveness = liveness.Source

// Member is one node as Liveness sees it.
type Member = liveness.Member

// Run runs the controllers until ctx ends and all of them have stopped. It returns nil then,
// ErrStillRunning if one has not stopped after 30 s, and another error if one could not be built.
//
// A controller that panics ends the process, after logging, as upstream's does: the state it was
// working on is in the store, and another node takes over.
func Run(ctx context.Context, c Config) error {
	ctx = klog.NewContext(ctx, logr.FromSlogHandler(c.Log.With("part", "control").Handler()).V(quiet))
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()

	tapped := c.Informers.Open()
	var background sync.WaitGroup
	err := run(ctx, c, tapped, &background)
	cancel()
	background.Wait()
	return errors.Join(err, tapped.Close())
}

// run builds the controllers, starts the informers they asked for, and runs both.
func run(ctx context.Context, c Config, tapped *tap.Tap, background *sync.WaitGroup) error {
	shared, metadataInformers, err := newContext(ctx, c, tapped, background)
	if err != nil {
		return err
	}
	// After cancel, which the caller does first on this path: it waits for the informers.
	background.Go(func() {
		<-ctx.Done()
		metadataInformers.Shutdown()
	})
	controllers, err := build(ctx, clients{rest: c.REST}, shared)
	if err != nil {
		return err
	}
	own, err := newOwn(ctx, c, shared)
	if err != nil {
		return err
	}
	controllers = append(controllers, own...)
	tapped.Start(ctx.Done())
	metadataInformers.Start(ctx.Done())
	close(shared.InformersStarted)
	if c.Started != nil {
		close(c.Started)
	}
	if !app.RunControllers(ctx, shared, controllers, 0, stopTimeout) {
		return fmt.Errorf("stop after %s: %w", stopTimeout, ErrStillRunning)
	}
	return nil
}

// newContext is upstream's CreateControllerContext with the process's informers in place of new
// ones. Goroutines it starts end with ctx and are counted in background.
func newContext(ctx context.Context, c Config, tapped *tap.Tap, background *sync.WaitGroup,
) (app.ControllerContext, metadatainformer.SharedInformerFactory, error) {
	fail := func(err error) (app.ControllerContext, metadatainformer.SharedInformerFactory, error) {
		return app.ControllerContext{}, nil, err
	}
	settings, err := settings(c)
	if err != nil {
		return fail(err)
	}
	own := clients{rest: c.REST}
	metadataClient, err := metadata.NewForConfig(own.config("metadata-informers"))
	if err != nil {
		return fail(fmt.Errorf("make metadata client: %w", err))
	}
	discovery, err := own.DiscoveryClient("controller-discovery")
	if err != nil {
		return fail(err)
	}
	mapper := restmapper.NewDeferredDiscoveryRESTMapper(memory.NewMemCacheClient(discovery))
	background.Go(func() { wait.UntilWithContext(ctx, func(context.Context) { mapper.Reset() }, discoveryPeriod) })

	metadataInformers := tap.Separate(metadatainformer.NewSharedInformerFactoryWithOptions(metadataClient, resync,
		metadatainformer.WithTransform(withoutManagedFields)))
	shared := app.ControllerContext{
		ClientBuilder:                   impersonating{own},
		InformerFactory:                 tapped,
		ObjectOrMetadataInformerFactory: informerfactory.NewInformerFactory(tapped, metadataInformers),
		ComponentConfig:                 settings,
		RESTMapper:                      mapper,
		InformersStarted:                make(chan struct{}),
		ResyncPeriod:                    func() time.Duration { return resync },
	}
	shared.GraphBuilder = garbagecollector.NewDependencyGraphBuilder(ctx, metadataClient, mapper,
		garbagecollector.DefaultIgnoredResources(), shared.ObjectOrMetadataInformerFactory, shared.InformersStarted)
	return shared, metadataInformers, nil
}

// constructor builds one controller.
type constructor func(context.Context, clients, app.ControllerContext) (app.Controller, error)

// constructors returns those that are not upstream's, with the reason beside each type.
func constructors() map[string]constructor {
	return map[string]constructor{
		names.ServiceAccountTokenController:             newTokenController,
		names.ValidatingAdmissionPolicyStatusController: newPolicyController,
		names.PodGarbageCollectorController:             newPodGC,
		names.NamespaceController:                       newNamespaceController,
	}
}

// build constructs every controller that is to run.
func build(ctx context.Context, own clients, shared app.ControllerContext) ([]app.Controller, error) {
	var controllers []app.Controller
	descriptors, ours := app.NewControllerDescriptors(), constructors()
	for _, d := range Decisions() {
		if !d.Runs {
			continue
		}
		var controller app.Controller
		var err error
		if construct, ok := ours[d.Name]; ok {
			controller, err = construct(ctx, own, shared)
		} else {
			controller, err = descriptors[d.Name].BuildController(ctx, shared)
		}
		if err != nil {
			return nil, fmt.Errorf("build %s: %w", d.Name, err)
		}
		if controller == nil {
			klog.FromContext(ctx).Info("controller declined to run", "controller", d.Name)
			continue
		}
		controllers = append(controllers, controller)
	}
	return controllers, nil
}
