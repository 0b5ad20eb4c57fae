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
	goruntime "runtime"
	"sort"
	"strings"

	"golang.org/x/sync/errgroup"
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
	"k8s.io/kube-openapi/pkg/handler3"
	"k8s.io/kube-openapi/pkg/validation/spec"

	"github.com/podman-swarm/podman-swarm/internal/pki"
)

// BuildOpenAPI writes the OpenAPI documents of the built-in APIs into dir. It needs some 250 MB
// for a few seconds, which is why a process of its own runs it. Each of the two parts appears only
// when it is complete; v3, which kubectl wants first, comes first. What is there is kept.
//
//	v3/<group version>.json.gz .pb.gz   with "~" for "/"
//	v2/pb.gz                            protobuf; a message appended to it is merged
//	v2/<n>.json.gz                      JSON in the pieces of jsonPieces
//	v2/names.gz                         definitions and parameters, one per line
func BuildOpenAPI(dir string) error {
	if err := buildOpenAPI(dir); err != nil {
		return fmt.Errorf("build OpenAPI: %w", err)
	}
	return nil
}

func buildOpenAPI(dir string) error {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return err
	}
	tmp, err := os.MkdirTemp(dir, ".building-*")
	if err != nil {
		return err
	}
	defer os.RemoveAll(tmp) //nolint:errcheck // the parent removes leftovers
	ch, err := scratchChain(filepath.Join(tmp, "node"))
	if err != nil {
		return err
	}
	for _, part := range []struct {
		name  string
		write func(string) error
	}{{"v3", ch.writeV3}, {"v2", ch.writeV2}} {
		if err := writePart(filepath.Join(tmp, part.name), filepath.Join(dir, part.name), part.write); err != nil {
			return fmt.Errorf("%s: %w", part.name, err)
		}
	}
	return nil
}

// writePart makes the directory final appear with everything that write puts into it.
func writePart(tmp, final string, write func(string) error) error {
	if _, err := os.Stat(final); err == nil {
		return nil
	}
	if err := os.Mkdir(tmp, 0o700); err != nil {
		return err
	}
	if err := write(tmp); err != nil {
		return err
	}
	return os.Rename(tmp, final)
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

// writeV3 lets upstream build and encode the v3 documents, and keeps each of them. Protobuf and
// compression are most of the work, so they run beside each other.
func (c *chain) writeV3(out string) error {
	seen := map[string]bool{}
	var work errgroup.Group
	work.SetLimit(goruntime.GOMAXPROCS(0))
	for _, s := range c.servers() {
		m := mux.NewPathRecorderMux("openapi")
		routes.OpenAPI{V3Config: c.config.OpenAPIV3Config}.InstallV3(s.Handler.GoRestfulContainer, m)
		l := newLoopback()
		l.serve(m)
		for _, ws := range s.Handler.GoRestfulContainer.RegisteredWebServices() {
			gv := strings.TrimPrefix(ws.RootPath(), "/")
			if seen[gv] {
				continue
			}
			seen[gv] = true
			data, err := getDocument(&http.Client{Transport: l}, gv)
			if err != nil {
				return errors.Join(fmt.Errorf("%s: %w", gv, err), work.Wait())
			}
			work.Go(func() error { return writeGroup(filepath.Join(out, fileOf(gv)), data) })
		}
	}
	return work.Wait()
}

func getDocument(client *http.Client, gv string) ([]byte, error) {
	req, err := http.NewRequestWithContext(context.Background(), http.MethodGet, "http://scratch/openapi/v3/"+gv, http.NoBody)
	if err != nil {
		return nil, err
	}
	resp, err := client.Do(req)
	if err != nil {
		return nil, err
	}
	data, err := io.ReadAll(resp.Body)
	if err := errors.Join(err, resp.Body.Close()); err != nil {
		return nil, err
	}
	if resp.StatusCode != http.StatusOK {
		return nil, errors.New(resp.Status)
	}
	return data, nil
}

func writeGroup(file string, data []byte) error {
	pb, err := handler3.ToV3ProtoBinary(data)
	if err != nil {
		return err
	}
	return errors.Join(writeGzip(file+".json.gz", data), writeGzip(file+".pb.gz", pb))
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
		writeGzip(filepath.Join(out, "names.gz"), []byte(strings.Join(names, "\n"))),
		writeGzip(filepath.Join(out, "pb.gz"), pb),
	)
}

func pieceFile(i int) string { return fmt.Sprintf("%d.json.gz", i) }

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
