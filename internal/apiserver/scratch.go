package apiserver

import (
	"context"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"path/filepath"

	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	genericregistry "k8s.io/apiserver/pkg/registry/generic"
	"k8s.io/apiserver/pkg/storage"
	"k8s.io/apiserver/pkg/storage/storagebackend"
	"k8s.io/apiserver/pkg/storage/storagebackend/factory"
	"k8s.io/client-go/tools/cache"

	"github.com/podman-swarm/podman-swarm/internal/apiserver/openapi"
	"github.com/podman-swarm/podman-swarm/internal/pki"
)

// BuildOpenAPI writes the OpenAPI documents of the built-in APIs into dir (see openapi.Write). It
// needs some 250 MB for a few seconds, which is why a process of its own runs it.
func BuildOpenAPI(ctx context.Context, dir string) error {
	if err := buildOpenAPI(ctx, dir); err != nil {
		return fmt.Errorf("build OpenAPI: %w", err)
	}
	return nil
}

func buildOpenAPI(ctx context.Context, dir string) error {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return err
	}
	tmp, err := os.MkdirTemp(dir, ".building-*")
	if err != nil {
		return err
	}
	defer os.RemoveAll(tmp) //nolint:errcheck // the parent removes leftovers
	ch, err := scratchChain(ctx, filepath.Join(tmp, "node"))
	if err != nil {
		return err
	}
	return openapi.Write(ctx, dir, tmp, openapi.Source{Servers: ch.servers(), V2: ch.config.OpenAPIConfig, V3: ch.config.OpenAPIV3Config})
}

// scratchChain is a server that is only built, never run: it has routes but no storage.
func scratchChain(ctx context.Context, dir string) (*chain, error) {
	keys, err := pki.Open(filepath.Join(dir, "pki"))
	if err != nil {
		return nil, err
	}
	c := &Config{
		DataDir: dir, Log: slog.New(slog.DiscardHandler), PKI: keys, Nodes: noNodes{}, NodeName: "scratch",
		Advertise: netip.MustParseAddr("127.0.0.1"), ServiceCIDR: netip.MustParsePrefix("10.43.0.0/16"),
		buildOpenAPI: true,
	}
	if err := c.complete(); err != nil {
		return nil, err
	}
	bridgeLogs(c.Log)
	return buildChain(ctx, c, memoryListener{}, func(g genericregistry.RESTOptionsGetter) genericregistry.RESTOptionsGetter {
		return noStorage{g}
	})
}

type noNodes struct{}

func (noNodes) DialNode(context.Context, string) (net.Conn, error) { return nil, net.ErrClosed }

// noStorage gives every resource a storage that must not be used.
type noStorage struct {
	genericregistry.RESTOptionsGetter
}

func (n noStorage) GetRESTOptions(r schema.GroupResource, example runtime.Object) (genericregistry.RESTOptions, error) {
	o, err := n.RESTOptionsGetter.GetRESTOptions(r, example)
	o.CountMetricPollPeriod = 0
	o.Decorator = func(*storagebackend.ConfigForResource, string, func(runtime.Object) (string, error),
		func() runtime.Object, func() runtime.Object, storage.AttrFunc, storage.IndexerFuncs, *cache.Indexers,
	) (storage.Interface, factory.DestroyFunc, error) {
		return unusable{}, func() {}, nil
	}
	return o, err
}

// unusable is a storage.Interface whose only working methods are the ones registries call early.
type unusable struct{ storage.Interface }

func (unusable) Versioner() storage.Versioner                        { return storage.APIObjectVersioner{} }
func (unusable) EnableResourceSizeEstimation(storage.KeysFunc) error { return nil }
