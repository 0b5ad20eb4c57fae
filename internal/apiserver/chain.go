package apiserver

import (
	"context"
	"fmt"
	"net"
	"net/url"

	apiextensionsapiserver "k8s.io/apiextensions-apiserver/pkg/apiserver"
	"k8s.io/apiserver/pkg/admission"
	genericapifilters "k8s.io/apiserver/pkg/endpoints/filters"
	genericregistry "k8s.io/apiserver/pkg/registry/generic"
	genericapiserver "k8s.io/apiserver/pkg/server"
	etcdmetrics "k8s.io/apiserver/pkg/storage/etcd3/metrics"
	"k8s.io/apiserver/pkg/util/notfoundhandler"
	"k8s.io/apiserver/pkg/util/proxy"
	"k8s.io/apiserver/pkg/util/webhook"
	"k8s.io/client-go/kubernetes"
	aggregatorapiserver "k8s.io/kube-aggregator/pkg/apiserver"
	"k8s.io/kubernetes/cmd/kube-apiserver/app/options"
	"k8s.io/kubernetes/pkg/capabilities"
	cpapiserver "k8s.io/kubernetes/pkg/controlplane/apiserver"
	"k8s.io/kubernetes/pkg/controlplane/controller/defaultservicecidr"
	"k8s.io/kubernetes/pkg/controlplane/controller/kubernetesservice"
	kubeapiserveradmission "k8s.io/kubernetes/pkg/kubeapiserver/admission"
)

// seam puts our storage under upstream's registries.
type seam func(genericregistry.RESTOptionsGetter) genericregistry.RESTOptionsGetter

// chain is the three servers that answer requests, first to last: aggregated APIs, built-in
// APIs, custom resources.
type chain struct {
	*generic
	aggregator *aggregatorapiserver.APIAggregator
	kube       *cpapiserver.Server
	extensions *apiextensionsapiserver.CustomResourceDefinitions
	core       *coreGroup
}

// servers are the chain's generic servers, first to last.
func (c *chain) servers() []*genericapiserver.GenericAPIServer {
	return []*genericapiserver.GenericAPIServer{c.aggregator.GenericAPIServer, c.kube.GenericAPIServer, c.extensions.GenericAPIServer}
}

// assembly holds what the steps of building a chain hand on to each other.
type assembly struct {
	*generic
	config   *Config
	options  options.CompletedOptions
	storage  seam
	resolver webhook.ServiceResolver
	cp       *cpapiserver.Config
	plugins  []admission.PluginInitializer
	life     context.Context //nolint:containedctx // for what upstream calls without one; never ends
}

// buildChain assembles the servers; it does no network I/O and starts nothing that serves.
func buildChain(ctx context.Context, c *Config, l net.Listener, storage seam) (*chain, error) {
	o, err := upstreamOptions(ctx, c, l)
	if err != nil {
		return nil, err
	}
	g, err := buildGeneric(c, o) // upstream ties these to the server's own end
	if err != nil {
		return nil, err
	}
	g.config.RESTOptionsGetter = storage(g.config.RESTOptionsGetter)
	b := &assembly{generic: g, config: c, options: o, storage: storage, life: context.WithoutCancel(ctx)}
	if err := b.controlPlane(); err != nil {
		return nil, err
	}
	out := &chain{generic: g}
	if out.extensions, err = b.extensions(); err != nil {
		return nil, err
	}
	out.kube, out.core, err = b.builtins(out.extensions.GenericAPIServer) // hooks get theirs
	if err != nil {
		return nil, err
	}
	if out.aggregator, err = b.aggregator(out); err != nil {
		return nil, err
	}
	// Upstream would dial etcd for its database size, 20 s long, whenever /metrics is read.
	etcdmetrics.SetStorageMonitorGetter(func() ([]etcdmetrics.Monitor, error) { return nil, nil })
	return out, nil
}

// controlPlane builds admission and what upstream calls the control plane configuration.
func (b *assembly) controlPlane() error {
	capabilities.Setup(true, 0)
	initializers, err := (&kubeapiserveradmission.Config{}).New()
	if err != nil {
		return err
	}
	slices, err := proxy.NewEndpointSliceIndexerGetter(b.informers.Discovery().V1().EndpointSlices())
	if err != nil {
		return err
	}
	self, err := url.Parse(b.generic.config.LoopbackClientConfig.Host)
	if err != nil {
		return err
	}
	b.resolver = aggregatorapiserver.NewLoopbackServiceResolver(
		aggregatorapiserver.NewEndpointServiceResolver(b.informers.Core().V1().Services().Lister(), slices), self)
	b.cp, b.plugins, err = cpapiserver.CreateConfig(b.options.CompletedOptions, b.generic.config, b.informers, slices, b.generic.storage, b.resolver, initializers)
	if err != nil {
		return err
	}
	// Admission webhooks hold the same transport and look at its dialer only when they call.
	b.cp.ProxyTransport.DialContext = b.config.Dial
	return nil
}

func (b *assembly) extensions() (*apiextensionsapiserver.CustomResourceDefinitions, error) {
	gc := b.generic.config
	auth := webhook.NewDefaultAuthenticationInfoResolverWrapper(b.cp.ProxyTransport, nil, gc.LoopbackClientConfig, gc.TracerProvider)
	c, err := cpapiserver.CreateAPIExtensionsConfig(*gc, b.informers, b.plugins, b.options.CompletedOptions, 1, b.resolver, auth)
	if err != nil {
		return nil, err
	}
	c.GenericConfig.RESTOptionsGetter = b.storage(c.GenericConfig.RESTOptionsGetter)
	c.ExtraConfig.CRDRESTOptionsGetter = b.storage(c.ExtraConfig.CRDRESTOptionsGetter)
	notFound := notfoundhandler.New(gc.Serializer, genericapifilters.NoMuxAndDiscoveryIncompleteKey)
	return c.Complete().New(genericapiserver.NewEmptyDelegateWithCustomHandler(notFound))
}

func (b *assembly) builtins(next genericapiserver.DelegationTarget) (*cpapiserver.Server, *coreGroup, error) {
	c := b.cp.Complete()
	s, err := c.New(cpapiserver.KubeAPIServer, next)
	if err != nil {
		return nil, nil, err
	}
	client, err := kubernetes.NewForConfig(c.Generic.LoopbackClientConfig)
	if err != nil {
		return nil, nil, err
	}
	core := &coreGroup{
		GenericConfig: *c.NewCoreGenericConfig(),
		client:        client,
		authorizer:    c.Generic.Authorization.Authorizer,
		kubelet:       newAgents(b.config.Nodes),
		transport:     c.ProxyTransport,
		slices:        c.EndpointSliceGetter,
		serviceCIDR:   b.config.ServiceCIDR,
		ports:         b.options.ServiceNodePortRange,
		store:         b.config.Store,
		life:          b.life,
	}
	if err := install(s, providers(c, core, client)); err != nil {
		return nil, nil, err
	}
	if err := b.kubernetesService(s, client); err != nil {
		return nil, nil, err
	}
	return s, core, nil
}

// kubernetesService keeps the default ServiceCIDR, the `kubernetes` Service and its endpoints.
func (b *assembly) kubernetesService(s *cpapiserver.Server, client *kubernetes.Clientset) error {
	_, port, err := b.generic.config.SecureServing.HostPort()
	if err != nil {
		return err
	}
	ctrl := kubernetesservice.New(kubernetesservice.Config{
		PublicIP:           b.config.Advertise.AsSlice(),
		EndpointReconciler: newEndpoints(b.config.NodeName, client),
		EndpointInterval:   endpointsInterval,
		ServiceIP:          b.options.APIServerServiceIP,
		ServicePort:        443,
		PublicServicePort:  port,
	}, client, b.informers.Core().V1().Services())
	gs := s.GenericAPIServer
	if err := gs.AddPostStartHook("bootstrap-controller", func(h genericapiserver.PostStartHookContext) error {
		ctrl.Start(h.Done())
		return nil
	}); err != nil {
		return err
	}
	return gs.AddPostStartHook("start-kubernetes-service-cidr-controller", func(h genericapiserver.PostStartHookContext) error {
		defaultservicecidr.NewController(b.options.PrimaryServiceClusterIPRange, b.options.SecondaryServiceClusterIPRange, client).Start(h)
		return nil
	})
}

func (b *assembly) aggregator(c *chain) (*aggregatorapiserver.APIAggregator, error) {
	ac, err := cpapiserver.CreateAggregatorConfig(*b.generic.config, b.options.CompletedOptions, b.informers, b.resolver, b.cp.ProxyTransport, nil, b.plugins)
	if err != nil {
		return nil, err
	}
	ac.GenericConfig.RESTOptionsGetter = b.storage(ac.GenericConfig.RESTOptionsGetter)
	crds := c.extensions.Informers.Apiextensions().V1().CustomResourceDefinitions()
	a, err := cpapiserver.CreateAggregatorServer(ac.Complete(), c.kube.GenericAPIServer, crds, true, priorities())
	if err != nil {
		return nil, fmt.Errorf("set up the aggregation layer: %w", err)
	}
	return a, nil
}
