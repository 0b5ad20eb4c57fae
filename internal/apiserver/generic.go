package apiserver

import (
	"fmt"
	"runtime/debug"
	"strings"
	"time"

	"github.com/google/uuid"
	apiextensionsapiserver "k8s.io/apiextensions-apiserver/pkg/apiserver"
	"k8s.io/apimachinery/pkg/api/meta"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/util/wait"
	apimachineryversion "k8s.io/apimachinery/pkg/version"
	"k8s.io/apiserver/pkg/endpoints/discovery/aggregated"
	openapinamer "k8s.io/apiserver/pkg/endpoints/openapi"
	genericapiserver "k8s.io/apiserver/pkg/server"
	serverstorage "k8s.io/apiserver/pkg/server/storage"
	"k8s.io/apiserver/pkg/util/openapi"
	"k8s.io/client-go/informers"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"
	"k8s.io/component-base/compatibility"
	aggregatorscheme "k8s.io/kube-aggregator/pkg/apiserver/scheme"
	openapicommon "k8s.io/kube-openapi/pkg/common"
	"k8s.io/kubernetes/cmd/kube-apiserver/app/options"
	"k8s.io/kubernetes/pkg/api/legacyscheme"
	"k8s.io/kubernetes/pkg/controlplane"
	cpapiserver "k8s.io/kubernetes/pkg/controlplane/apiserver"
	generatedopenapi "k8s.io/kubernetes/pkg/generated/openapi"
	"k8s.io/kubernetes/pkg/kubeapiserver"

	"github.com/podman-swarm/podman-swarm/internal/apiserver/inproc"
)

// generic is what all three servers of the chain share.
type generic struct {
	config    *genericapiserver.Config
	informers informers.SharedInformerFactory
	storage   *serverstorage.DefaultStorageFactory
	loopback  *inproc.Transport
}

// buildGeneric is upstream's controlplane/apiserver.BuildGenericConfig, with a loopback client
// that does not leave the process, and with the OpenAPI definitions only where they are
// indispensable (type converters of server-side apply).
func buildGeneric(c *Config, o options.CompletedOptions) (*generic, error) {
	g := &generic{config: genericapiserver.NewConfig(legacyscheme.Codecs), loopback: inproc.New()}
	gc := g.config
	gc.MergedResourceConfig = controlplane.DefaultAPIResourceConfigSource()
	if err := o.GenericServerRunOptions.ApplyTo(gc); err != nil {
		return nil, err
	}
	gc.EffectiveVersion = servedVersion{gc.EffectiveVersion, c.Version}
	if err := o.SecureServing.SecureServingOptions.ApplyTo(&gc.SecureServing); err != nil {
		return nil, err
	}
	gc.LoopbackClientConfig = loopbackConfig(g.loopback, gc.SecureServing.Listener.Addr().String())
	client, err := kubernetes.NewForConfig(gc.LoopbackClientConfig)
	if err != nil {
		return nil, err
	}
	g.informers = informers.NewSharedInformerFactoryWithOptions(client, 10*time.Minute, informers.WithTransform(dropManagedFields))
	if err := o.Features.ApplyTo(gc, client, g.informers); err != nil {
		return nil, err
	}
	if err := o.APIEnablement.ApplyTo(gc, gc.MergedResourceConfig, legacyscheme.Scheme); err != nil {
		return nil, err
	}
	setDefinitions(gc, c.buildOpenAPI)
	gc.LongRunningFunc = longRunning(c.ExtraLong)
	if err := g.buildStorage(o); err != nil {
		return nil, err
	}
	if err := g.buildAuth(c, o, client); err != nil {
		return nil, err
	}
	gc.AggregatedDiscoveryGroupManager = aggregated.NewResourceManager("apis")
	return g, nil
}

func (g *generic) buildStorage(o options.CompletedOptions) error {
	gc := g.config
	sc := kubeapiserver.NewStorageFactoryConfigEffectiveVersion(gc.EffectiveVersion)
	sc.APIResourceConfig = gc.MergedResourceConfig
	sc.DefaultResourceEncoding.SetEffectiveVersion(gc.EffectiveVersion)
	var err error
	if g.storage, err = sc.Complete(o.Etcd).New(); err != nil {
		return err
	}
	g.storage.StorageConfig.StorageObjectCountTracker = gc.StorageObjectCountTracker
	return o.Etcd.ApplyWithStorageFactoryTo(g.storage, gc)
}

func (g *generic) buildAuth(c *Config, o options.CompletedOptions, client kubernetes.Interface) error {
	gc := g.config
	ctx := wait.ContextForChannel(gc.DrainedNotify())
	doc := gc.OpenAPIConfig
	if doc == nil {
		doc = &openapicommon.Config{} // takes the security definitions, for nobody
	}
	err := o.Authentication.ApplyTo(ctx, &gc.Authentication, gc.SecureServing, nil,
		doc, gc.OpenAPIV3Config, client, g.informers, gc.APIServerID)
	if err != nil {
		return fmt.Errorf("set up authentication: %w", err)
	}
	if c.Refuse != nil {
		gc.Authentication.Authenticator = refusing{c.Refuse, gc.Authentication.Authenticator}
	}
	gc.Authorization.Authorizer, gc.RuleResolver, _, err = cpapiserver.BuildAuthorizer(ctx, o.CompletedOptions, nil, gc.APIServerID, g.informers)
	if err != nil {
		return fmt.Errorf("set up authorization: %w", err)
	}
	if err := o.Audit.ApplyTo(gc); err != nil {
		return fmt.Errorf("set up audit: %w", err)
	}
	return nil
}

// loopbackConfig returns the configuration of in-process clients: system:masters, protobuf, no
// rate limit. addr is only a name: requests never reach the network.
func loopbackConfig(t *inproc.Transport, addr string) *rest.Config {
	c := &rest.Config{
		Host:               "https://" + addr,
		QPS:                -1,
		BearerToken:        uuid.NewString(),
		DisableCompression: true,
		WarningHandler:     rest.NoWarnings{},
	}
	c.ContentType = runtime.ContentTypeProtobuf
	t.Wrap(c)
	return c
}

// setDefinitions installs the OpenAPI definitions: v3 always, because server-side apply takes its
// types from them, v2 only for a server that builds the documents. chain.trim takes them
// away when all type converters are made.
func setDefinitions(gc *genericapiserver.Config, v2 bool) {
	get := openapi.GetOpenAPIDefinitionsWithoutDisabledFeatures(generatedopenapi.GetOpenAPIDefinitions)
	gc.OpenAPIV3Config = genericapiserver.DefaultOpenAPIV3Config(get, definitionNamer())
	gc.OpenAPIV3Config.Info.Title = "Kubernetes"
	gc.SkipOpenAPIInstallation = true
	if v2 {
		gc.OpenAPIConfig = genericapiserver.DefaultOpenAPIConfig(get, definitionNamer())
		gc.OpenAPIConfig.Info.Title = "Kubernetes"
	}
}

func definitionNamer() *openapinamer.DefinitionNamer {
	return openapinamer.NewDefinitionNamer(legacyscheme.Scheme, apiextensionsapiserver.Scheme, aggregatorscheme.Scheme)
}

// dropManagedFields keeps informers from holding what nobody in this process reads.
func dropManagedFields(obj any) (any, error) {
	if a, err := meta.Accessor(obj); err == nil && a.GetManagedFields() != nil {
		a.SetManagedFields(nil)
	}
	return obj, nil
}

// servedVersion reports the version of the Kubernetes libraries in this program; without it a
// library build calls itself v0.0.0-master and clients compute a nonsensical skew.
type servedVersion struct {
	compatibility.EffectiveVersion
	own string
}

func (v servedVersion) Info() *apimachineryversion.Info {
	info := *v.EffectiveVersion.Info()
	info.GitVersion = kubernetesVersion() + "+podman-swarm"
	if own := buildMetadata(v.own); own != "" {
		info.GitVersion += "." + own
	}
	major, rest, _ := strings.Cut(strings.TrimPrefix(kubernetesVersion(), "v"), ".")
	info.Major, info.Minor, _ = cut3(major, rest)
	info.GitTreeState = "clean"
	return &info
}

func cut3(major, rest string) (string, string, string) {
	minor, patch, _ := strings.Cut(rest, ".")
	return major, minor, patch
}

// kubernetesVersion is the version of the k8s.io/kubernetes module in this program.
func kubernetesVersion() string {
	if info, ok := debug.ReadBuildInfo(); ok {
		for _, m := range info.Deps {
			if m.Path == "k8s.io/kubernetes" {
				return m.Version
			}
		}
	}
	return "v1.37.0"
}

// buildMetadata keeps of s what semantic versioning allows after a plus sign.
func buildMetadata(s string) string {
	return strings.Map(func(r rune) rune {
		switch {
		case r >= '0' && r <= '9', r >= 'a' && r <= 'z', r >= 'A' && r <= 'Z', r == '-', r == '.':
			return r
		}
		return -1
	}, s)
}
