package apiserver

import (
	"compress/gzip"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/netip"
	"os"
	"path/filepath"
	"sort"
	"strings"

	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	genericregistry "k8s.io/apiserver/pkg/registry/generic"
	"k8s.io/apiserver/pkg/server/mux"
	"k8s.io/apiserver/pkg/server/routes"
	"k8s.io/apiserver/pkg/storage"
	"k8s.io/apiserver/pkg/storage/storagebackend"
	"k8s.io/apiserver/pkg/storage/storagebackend/factory"
	"k8s.io/client-go/tools/cache"
	"k8s.io/kube-openapi/pkg/aggregator"
	"k8s.io/kube-openapi/pkg/handler"
	"k8s.io/kube-openapi/pkg/validation/spec"

	"github.com/podman-swarm/podman-swarm/internal/pki"
)

// BuildOpenAPI writes the OpenAPI documents of the built-in APIs into the new directory dir, which
// appears only when it is complete. It needs some 150 MB for a few seconds, which is why a
// process of its own runs it.
//
//	v3/<group version>.json.gz .pb.gz   with "~" for "/"
//	v2.pb.gz                            protobuf; a message appended to it is merged
//	v2.<n>.json.gz                      JSON in the pieces of jsonPieces
//	v2.names.gz                         definitions and parameters, one per line
func BuildOpenAPI(dir string) error {
	tmp, err := os.MkdirTemp(filepath.Dir(dir), ".building-*")
	if err != nil {
		return fmt.Errorf("build OpenAPI: %w", err)
	}
	defer os.RemoveAll(tmp) //nolint:errcheck // a leftover is removed by the next build
	ch, err := scratchChain(filepath.Join(tmp, "node"))
	if err != nil {
		return fmt.Errorf("build OpenAPI: %w", err)
	}
	out := filepath.Join(tmp, "out")
	if err := errors.Join(os.MkdirAll(filepath.Join(out, "v3"), 0o700), ch.writeV3(out), ch.writeV2(out)); err != nil {
		return fmt.Errorf("build OpenAPI: %w", err)
	}
	if err := os.Rename(out, dir); err != nil {
		return fmt.Errorf("build OpenAPI: %w", err)
	}
	return nil
}

// scratchChain is a server that is only built, never run: it has routes but no storage.
func scratchChain(dir string) (*chain, error) {
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
	return buildChain(context.Background(), c, memoryListener{}, func(g genericregistry.RESTOptionsGetter) genericregistry.RESTOptionsGetter {
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

// unusable is a storage.Interface whose only working method is the one registries call early.
type unusable struct{ storage.Interface }

func (unusable) Versioner() storage.Versioner                        { return storage.APIObjectVersioner{} }
func (unusable) EnableResourceSizeEstimation(storage.KeysFunc) error { return nil }

// writeV3 lets upstream build and encode the v3 documents, and keeps each of them.
func (c *chain) writeV3(out string) error {
	seen := map[string]bool{}
	for _, s := range c.servers() {
		m := mux.NewPathRecorderMux("openapi")
		routes.OpenAPI{V3Config: c.config.OpenAPIV3Config}.InstallV3(s.Handler.GoRestfulContainer, m)
		l := newLoopback()
		l.serve(m)
		client := &http.Client{Transport: l}
		for _, ws := range s.Handler.GoRestfulContainer.RegisteredWebServices() {
			gv := strings.TrimPrefix(ws.RootPath(), "/")
			if seen[gv] {
				continue
			}
			seen[gv] = true
			if err := writeGroup(client, gv, filepath.Join(out, "v3", fileOf(gv))); err != nil {
				return err
			}
		}
	}
	return nil
}

func writeGroup(client *http.Client, gv, file string) error {
	for ext, accept := range map[string]string{".json.gz": "application/json", ".pb.gz": mediaV3} {
		req, err := http.NewRequestWithContext(context.Background(), http.MethodGet, "http://scratch/openapi/v3/"+gv, http.NoBody)
		if err != nil {
			return err
		}
		req.Header.Set("Accept", accept)
		resp, err := client.Do(req)
		if err != nil {
			return fmt.Errorf("%s: %w", gv, err)
		}
		data, err := io.ReadAll(resp.Body)
		if err := errors.Join(err, resp.Body.Close()); err != nil {
			return fmt.Errorf("%s: %w", gv, err)
		}
		if resp.StatusCode != http.StatusOK {
			return fmt.Errorf("%s: %s", gv, resp.Status)
		}
		if err := writeGzip(file+ext, data); err != nil {
			return err
		}
	}
	return nil
}

// fileOf is the file name of a group version such as "apis/apps/v1".
func fileOf(gv string) string { return strings.ReplaceAll(gv, "/", "~") }

func (c *chain) writeV2(out string) error {
	var all *spec.Swagger
	for _, s := range c.servers() {
		_, part := routes.OpenAPI{Config: c.config.OpenAPIConfig}.InstallV2(s.Handler.GoRestfulContainer, mux.NewPathRecorderMux("openapi"))
		if all == nil {
			all = part
			continue
		}
		if err := aggregator.MergeSpecsIgnorePathConflictRenamingDefinitionsAndParameters(all, part); err != nil {
			return err
		}
	}
	data, err := json.Marshal(all)
	if err != nil {
		return err
	}
	pb, err := handler.ToProtoBinary(data)
	if err != nil {
		return err
	}
	pieces, err := jsonPieces(data)
	if err != nil {
		return err
	}
	for i, p := range pieces {
		if err := writeGzip(filepath.Join(out, pieceFile(i)), p); err != nil {
			return err
		}
	}
	var names []string
	for n := range all.Definitions {
		names = append(names, n)
	}
	for n := range all.Parameters {
		names = append(names, n)
	}
	sort.Strings(names)
	return errors.Join(
		writeGzip(filepath.Join(out, "v2.names.gz"), []byte(strings.Join(names, "\n"))),
		writeGzip(filepath.Join(out, "v2.pb.gz"), pb),
	)
}

func pieceFile(i int) string { return fmt.Sprintf("v2.%d.json.gz", i) }

// pieceKeys are the objects of a v2 document that custom resources add members to.
func pieceKeys() []string { return []string{"paths", "definitions", "parameters"} }

// jsonPieces cuts a v2 document so that members can be added without parsing it: each piece but
// the last ends within the object of one of pieceKeys, right where ",member" may follow.
func jsonPieces(doc []byte) ([][]byte, error) {
	top := map[string]json.RawMessage{}
	if err := json.Unmarshal(doc, &top); err != nil {
		return nil, err
	}
	open := map[string][]byte{}
	for _, k := range pieceKeys() {
		v := top[k]
		if len(v) <= len("{}") || v[0] != '{' {
			return nil, fmt.Errorf("OpenAPI v2: %q is missing or empty", k)
		}
		open[k] = v[:len(v)-1]
		delete(top, k)
	}
	head, err := json.Marshal(top)
	if err != nil {
		return nil, err
	}
	pieces := make([][]byte, 0, len(open)+1)
	lead := append(head[:len(head)-1:len(head)-1], ',')
	for _, k := range pieceKeys() {
		pieces = append(pieces, append(append(lead, fmt.Sprintf("%q:", k)...), open[k]...))
		lead = []byte("},")
	}
	return append(pieces, []byte("}}")), nil
}

func writeGzip(path string, data []byte) error {
	f, err := os.OpenFile(path, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o600) // #nosec G304 -- our own directory
	if err != nil {
		return err
	}
	z := gzip.NewWriter(f)
	_, werr := z.Write(data)
	return errors.Join(werr, z.Close(), f.Sync(), f.Close())
}
