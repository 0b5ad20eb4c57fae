package apiserver

import (
	"fmt"
	"maps"

	"k8s.io/apimachinery/pkg/runtime/schema"
	genericapiserver "k8s.io/apiserver/pkg/server"
	"k8s.io/client-go/kubernetes"
	cpapiserver "k8s.io/kubernetes/pkg/controlplane/apiserver"
	admissionregistrationrest "k8s.io/kubernetes/pkg/registry/admissionregistration/rest"
	apiserverinternalrest "k8s.io/kubernetes/pkg/registry/apiserverinternal/rest"
	appsrest "k8s.io/kubernetes/pkg/registry/apps/rest"
	authenticationrest "k8s.io/kubernetes/pkg/registry/authentication/rest"
	authorizationrest "k8s.io/kubernetes/pkg/registry/authorization/rest"
	autoscalingrest "k8s.io/kubernetes/pkg/registry/autoscaling/rest"
	batchrest "k8s.io/kubernetes/pkg/registry/batch/rest"
	certificatesrest "k8s.io/kubernetes/pkg/registry/certificates/rest"
	coordinationrest "k8s.io/kubernetes/pkg/registry/coordination/rest"
	discoveryrest "k8s.io/kubernetes/pkg/registry/discovery/rest"
	eventsrest "k8s.io/kubernetes/pkg/registry/events/rest"
	flowcontrolrest "k8s.io/kubernetes/pkg/registry/flowcontrol/rest"
	lifecyclerest "k8s.io/kubernetes/pkg/registry/lifecycle/rest"
	networkingrest "k8s.io/kubernetes/pkg/registry/networking/rest"
	noderest "k8s.io/kubernetes/pkg/registry/node/rest"
	policyrest "k8s.io/kubernetes/pkg/registry/policy/rest"
	rbacrest "k8s.io/kubernetes/pkg/registry/rbac/rest"
	resourcerest "k8s.io/kubernetes/pkg/registry/resource/rest"
	schedulingrest "k8s.io/kubernetes/pkg/registry/scheduling/rest"
	storagerest "k8s.io/kubernetes/pkg/registry/storage/rest"
	svmrest "k8s.io/kubernetes/pkg/registry/storagemigration/rest"
)

// providers lists every API group of upstream's controlplane.Instance, in its order, which
// discovery shows and which decides what an unqualified resource name means. Which versions of
// them are served is up to controlplane.DefaultAPIResourceConfigSource.
func providers(c cpapiserver.CompletedConfig, core *coreGroup, client kubernetes.Interface) []cpapiserver.RESTStorageProvider {
	gc := c.Generic
	auth := gc.Authorization.Authorizer
	return []cpapiserver.RESTStorageProvider{
		core,
		apiserverinternalrest.StorageProvider{},
		authenticationrest.RESTStorageProvider{Authenticator: gc.Authentication.Authenticator, APIAudiences: gc.Authentication.APIAudiences},
		authorizationrest.RESTStorageProvider{Authorizer: auth, RuleResolver: gc.RuleResolver},
		autoscalingrest.RESTStorageProvider{},
		batchrest.RESTStorageProvider{},
		certificatesrest.RESTStorageProvider{Authorizer: auth},
		coordinationrest.RESTStorageProvider{},
		discoveryrest.StorageProvider{},
		lifecyclerest.RESTStorageProvider{},
		networkingrest.RESTStorageProvider{},
		noderest.RESTStorageProvider{},
		policyrest.RESTStorageProvider{},
		rbacrest.RESTStorageProvider{Authorizer: auth},
		schedulingrest.RESTStorageProvider{},
		storagerest.RESTStorageProvider{},
		svmrest.RESTStorageProvider{},
		flowcontrolrest.RESTStorageProvider{InformerFactory: gc.SharedInformerFactory},
		appsrest.StorageProvider{},
		admissionregistrationrest.RESTStorageProvider{Authorizer: auth, DiscoveryClient: client.Discovery()},
		eventsrest.RESTStorageProvider{TTL: c.EventTTL},
		resourcerest.RESTStorageProvider{NamespaceClient: client.CoreV1().Namespaces(), Authorizer: auth},
	}
}

// install is upstream's Server.InstallAPIs, but lets go of the OpenAPI schemas afterwards: the
// server keeps the group infos for their storage only, the schemas are some 15 MB.
func install(s *cpapiserver.Server, list []cpapiserver.RESTStorageProvider) error {
	gs := s.GenericAPIServer
	expired, err := genericapiserver.NewResourceExpirationEvaluatorFromOptions(genericapiserver.ResourceExpirationEvaluatorOptions{
		CurrentVersion:                          gs.EffectiveVersion.EmulationVersion(),
		Prerelease:                              gs.EffectiveVersion.BinaryVersion().PreRelease(),
		EmulationForwardCompatible:              gs.EmulationForwardCompatible,
		RuntimeConfigEmulationForwardCompatible: gs.RuntimeConfigEmulationForwardCompatible,
	})
	if err != nil {
		return err
	}
	var groups []*genericapiserver.APIGroupInfo
	for _, p := range list {
		name := p.GroupName()
		info, err := p.NewRESTStorage(s.APIResourceConfigSource, s.RESTOptionsGetter)
		if err != nil {
			return fmt.Errorf("set up API group %q: %w", name, err)
		}
		if len(info.VersionedResourcesStorageMap) == 0 {
			continue // no version of it is served by default
		}
		if err := expired.RemoveUnavailableKinds(name, info.Scheme, info.VersionedResourcesStorageMap, s.APIResourceConfigSource); err != nil {
			return fmt.Errorf("set up API group %q: %w", name, err)
		}
		if len(info.VersionedResourcesStorageMap) == 0 {
			continue
		}
		if err := addHook(gs, p); err != nil {
			return fmt.Errorf("set up API group %q: %w", name, err)
		}
		if name == "" {
			err := gs.InstallLegacyAPIGroup(genericapiserver.DefaultLegacyAPIPrefix, &info)
			info.StaticOpenAPISpec = nil
			if err != nil {
				return fmt.Errorf("install the core API group: %w", err)
			}
			continue
		}
		groups = append(groups, &info)
	}
	err = gs.InstallAPIGroups(groups...)
	for _, info := range groups {
		info.StaticOpenAPISpec = nil
	}
	if err != nil {
		return fmt.Errorf("install API groups: %w", err)
	}
	return nil
}

func addHook(gs *genericapiserver.GenericAPIServer, p cpapiserver.RESTStorageProvider) error {
	h, ok := p.(genericapiserver.PostStartHookProvider)
	if !ok {
		return nil
	}
	name, hook, err := h.PostStartHook()
	if err != nil {
		return err
	}
	switch p.(type) {
	case rbacrest.RESTStorageProvider:
		hook = bootstrapHook(ensureRoles)
	case schedulingrest.RESTStorageProvider:
		hook = bootstrapHook(ensurePriorityClasses)
	}
	return gs.AddPostStartHook(name, hook)
}

// priorities order groups and versions in discovery. Upstream's table for the groups that a
// generic control plane lacks is private to cmd/kube-apiserver.
func priorities() map[schema.GroupVersion]cpapiserver.APIServicePriority {
	all := cpapiserver.DefaultGenericAPIServicePriorities()
	maps.Copy(all, map[schema.GroupVersion]cpapiserver.APIServicePriority{
		{Group: "apps", Version: "v1"}:              {Group: 17800, Version: 15},
		{Group: "autoscaling", Version: "v1"}:       {Group: 17500, Version: 15},
		{Group: "autoscaling", Version: "v2"}:       {Group: 17500, Version: 30},
		{Group: "batch", Version: "v1"}:             {Group: 17400, Version: 15},
		{Group: "networking.k8s.io", Version: "v1"}: {Group: 17200, Version: 15},
		{Group: "policy", Version: "v1"}:            {Group: 17100, Version: 15},
		{Group: "storage.k8s.io", Version: "v1"}:    {Group: 16800, Version: 15},
		{Group: "scheduling.k8s.io", Version: "v1"}: {Group: 16600, Version: 15},
		{Group: "node.k8s.io", Version: "v1"}:       {Group: 16300, Version: 15},
		{Group: "resource.k8s.io", Version: "v1"}:   {Group: 16200, Version: 21},
	})
	return all
}
