package apiserver

import (
	"context"
	"errors"
	"net/http"
	"net/netip"
	"time"

	utilnet "k8s.io/apimachinery/pkg/util/net"
	"k8s.io/apimachinery/pkg/util/wait"
	"k8s.io/apiserver/pkg/authorization/authorizer"
	genericregistry "k8s.io/apiserver/pkg/registry/generic"
	"k8s.io/apiserver/pkg/registry/rest"
	genericapiserver "k8s.io/apiserver/pkg/server"
	serverstorage "k8s.io/apiserver/pkg/server/storage"
	"k8s.io/apiserver/pkg/util/proxy"
	"k8s.io/client-go/kubernetes"
	"k8s.io/klog/v2"
	api "k8s.io/kubernetes/pkg/apis/core"
	kubeletclient "k8s.io/kubernetes/pkg/kubelet/client"
	"k8s.io/kubernetes/pkg/registry/core/componentstatus"
	endpointsstore "k8s.io/kubernetes/pkg/registry/core/endpoint/storage"
	limitrangestore "k8s.io/kubernetes/pkg/registry/core/limitrange/storage"
	nodestore "k8s.io/kubernetes/pkg/registry/core/node/storage"
	pvstore "k8s.io/kubernetes/pkg/registry/core/persistentvolume/storage"
	pvcstore "k8s.io/kubernetes/pkg/registry/core/persistentvolumeclaim/storage"
	podstore "k8s.io/kubernetes/pkg/registry/core/pod/storage"
	podtemplatestore "k8s.io/kubernetes/pkg/registry/core/podtemplate/storage"
	rcstore "k8s.io/kubernetes/pkg/registry/core/replicationcontroller/storage"
	corerest "k8s.io/kubernetes/pkg/registry/core/rest"
	"k8s.io/kubernetes/pkg/registry/core/service/ipallocator"
	ipallocatorcontroller "k8s.io/kubernetes/pkg/registry/core/service/ipallocator/controller"
	servicestore "k8s.io/kubernetes/pkg/registry/core/service/storage"
	serviceaccountstore "k8s.io/kubernetes/pkg/registry/core/serviceaccount/storage"

	"github.com/podman-swarm/podman-swarm/internal/apiserver/nodeports"
)

// repairInterval is how often cluster IPs are compared with the stored Services.
const repairInterval = 3 * time.Minute

// clusterIPsTimeout bounds how long a server that starts waits for them.
const clusterIPsTimeout = 30 * time.Second

// coreGroup is the core API group. It stands for upstream's corerest.New, whose node port
// allocator opens an etcd client of its own, past the storage seam.
type coreGroup struct {
	corerest.GenericConfig
	client      kubernetes.Interface
	authorizer  authorizer.Authorizer
	kubelet     *agents
	transport   http.RoundTripper // to pods and Services
	slices      proxy.EndpointSliceGetter
	serviceCIDR netip.Prefix
	ports       utilnet.PortRange
	store       nodeports.Store
	life        context.Context       //nolint:containedctx // see assembly
	nodePorts   *nodeports.Ports      // set by NewRESTStorage
	clusterIPs  ipallocator.Interface // as above
}

func (g *coreGroup) GroupName() string { return api.GroupName }

// NewRESTStorage implements cpapiserver.RESTStorageProvider.
func (g *coreGroup) NewRESTStorage(rc serverstorage.APIResourceConfigSource, opts genericregistry.RESTOptionsGetter) (genericapiserver.APIGroupInfo, error) {
	info, err := g.GenericConfig.NewRESTStorage(rc, opts)
	if err != nil {
		return info, err
	}
	s := info.VersionedResourcesStorageMap["v1"]
	nodes, err := g.addNodes(s, opts)
	if err != nil {
		return info, err
	}
	pods, err := g.addPods(s, opts)
	if err != nil {
		return info, err
	}
	if err := g.addServiceAccounts(s, opts, pods, nodes); err != nil {
		return info, err
	}
	if err := g.addServices(s, opts, pods); err != nil {
		return info, err
	}
	return info, addRest(s, opts)
}

func (g *coreGroup) addNodes(s map[string]rest.Storage, opts genericregistry.RESTOptionsGetter) (*nodestore.NodeStorage, error) {
	nodes, err := nodestore.NewStorage(opts, kubeletclient.KubeletClientConfig{}, g.transport)
	if err != nil {
		return nil, err
	}
	g.kubelet.nodes = nodes.Node
	nodes.Proxy.Connection = g.kubelet
	s["nodes"], s["nodes/status"], s["nodes/proxy"] = nodes.Node, nodes.Status, nodes.Proxy
	return nodes, nil
}

func (g *coreGroup) addPods(s map[string]rest.Storage, opts genericregistry.RESTOptionsGetter) (*podstore.PodStorage, error) {
	p, err := podstore.NewStorage(opts, g.kubelet, g.transport, g.client.PolicyV1(), g.authorizer)
	if err != nil {
		return nil, err
	}
	s["pods"], s["pods/status"], s["pods/ephemeralcontainers"], s["pods/resize"] = p.Pod, p.Status, p.EphemeralContainers, p.Resize
	s["pods/binding"], s["bindings"], s["pods/eviction"] = p.Binding, p.LegacyBinding, p.Eviction
	s["pods/log"], s["pods/exec"], s["pods/attach"] = p.Log, p.Exec, p.Attach
	s["pods/portforward"], s["pods/proxy"] = p.PortForward, p.Proxy
	return &p, nil
}

// addServiceAccounts replaces the generic storage, whose tokens cannot be bound to pods and nodes.
func (g *coreGroup) addServiceAccounts(s map[string]rest.Storage, opts genericregistry.RESTOptionsGetter, pods *podstore.PodStorage, nodes *nodestore.NodeStorage) error {
	s["serviceaccounts"].Destroy()
	if token := s["serviceaccounts/token"]; token != nil {
		token.Destroy()
	}
	hooks := g.client.AdmissionregistrationV1()
	sa, err := serviceaccountstore.NewREST(opts, g.ServiceAccountIssuer, g.APIAudiences, g.authorizer, g.ServiceAccountMaxExpiration,
		pods.Pod.Store, s["secrets"].(rest.Getter), nodes.Node.Store,
		hooks.ValidatingWebhookConfigurations(), hooks.MutatingWebhookConfigurations(), g.ExtendExpiration, g.MaxExtendedExpiration)
	if err != nil {
		return err
	}
	s["serviceaccounts"], s["serviceaccounts/token"] = sa, sa.Token
	return nil
}

// addServices wires cluster IPs to upstream's allocator (one IPAddress object each, so they are
// replicated with everything else) and node ports to ours.
func (g *coreGroup) addServices(s map[string]rest.Storage, opts genericregistry.RESTOptionsGetter, pods *podstore.PodStorage) error {
	n := g.Informers.Networking().V1()
	ips, err := ipallocator.NewMetaAllocator(g.client.NetworkingV1(), n.ServiceCIDRs(), n.IPAddresses(), g.serviceCIDR.Addr().Is6(), nil)
	if err != nil {
		return err
	}
	g.clusterIPs = ips
	if g.nodePorts, err = nodeports.New(g.life, g.ports, g.store); err != nil {
		return err
	}
	svc, status, proxied, err := servicestore.NewREST(opts, ips.IPFamily(), map[api.IPFamily]ipallocator.Interface{ips.IPFamily(): ips},
		g.nodePorts, g.slices, pods.Pod, g.transport)
	if err != nil {
		return err
	}
	s["services"], s["services/status"], s["services/proxy"] = svc, status, proxied
	return nil
}

// addRest adds the resources that need nothing of ours.
func addRest(s map[string]rest.Storage, opts genericregistry.RESTOptionsGetter) (err error) {
	if s["endpoints"], err = endpointsstore.NewREST(opts); err != nil {
		return err
	}
	if s["limitranges"], err = limitrangestore.NewREST(opts); err != nil {
		return err
	}
	if s["podtemplates"], err = podtemplatestore.NewREST(opts); err != nil {
		return err
	}
	if s["persistentvolumes"], s["persistentvolumes/status"], err = pvstore.NewREST(opts); err != nil {
		return err
	}
	if s["persistentvolumeclaims"], s["persistentvolumeclaims/status"], err = pvcstore.NewREST(opts); err != nil {
		return err
	}
	rc, err := rcstore.NewStorage(opts)
	if err != nil {
		return err
	}
	s["replicationcontrollers"], s["replicationcontrollers/status"], s["replicationcontrollers/scale"] = rc.Controller, rc.Status, rc.Scale
	// There are no separate control plane processes to ask: the (deprecated) list is empty.
	s["componentstatuses"] = componentstatus.NewStorage(func() map[string]componentstatus.Server { return nil })
	return nil
}

// PostStartHook implements genericapiserver.PostStartHookProvider: it starts the repair loops.
func (g *coreGroup) PostStartHook() (string, genericapiserver.PostStartHookFunc, error) {
	services, n := g.Informers.Core().V1().Services(), g.Informers.Networking().V1()
	ips := ipallocatorcontroller.NewRepairIPAddress(repairInterval, g.client, services, n.ServiceCIDRs(), n.IPAddresses())
	return "start-service-ip-repair-controllers", func(ctx genericapiserver.PostStartHookContext) error {
		stop := make(chan struct{})
		go func() { <-ctx.Done(); close(stop) }()
		go ips.RunUntil(func() {}, stop)
		go g.nodePorts.Repair(ctx, services.Lister(), services.Informer())
		g.awaitClusterIPs(ctx)
		return nil
	}, nil
}

// awaitClusterIPs keeps the server from being ready before it can hand out cluster IPs: until its
// informers have told the allocator of the ranges, it says that they are full.
func (g *coreGroup) awaitClusterIPs(ctx context.Context) {
	ctx, cancel := context.WithTimeout(ctx, clusterIPsTimeout)
	defer cancel()
	err := wait.PollUntilContextCancel(ctx, 10*time.Millisecond, true, func(context.Context) (bool, error) {
		_, err := g.clusterIPs.DryRun().AllocateNext()
		return err == nil || errors.Is(err, ipallocator.ErrFull), nil
	})
	if err != nil { // no reason not to serve all the rest
		klog.Warningf("cluster IPs cannot be handed out yet: %v", err)
	}
}
