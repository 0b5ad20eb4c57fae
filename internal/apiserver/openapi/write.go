package openapi

import (
	"compress/gzip"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"runtime"
	"sort"
	"strings"

	"golang.org/x/sync/errgroup"
	genericapiserver "k8s.io/apiserver/pkg/server"
	"k8s.io/apiserver/pkg/server/mux"
	"k8s.io/apiserver/pkg/server/routes"
	"k8s.io/kube-openapi/pkg/aggregator"
	"k8s.io/kube-openapi/pkg/common"
	"k8s.io/kube-openapi/pkg/handler"
	"k8s.io/kube-openapi/pkg/handler3"
	"k8s.io/kube-openapi/pkg/validation/spec"

	"github.com/podman-swarm/podman-swarm/internal/apiserver/inproc"
)

// Source is a chain of servers, first to last, that has routes but need not run.
type Source struct {
	Servers []*genericapiserver.GenericAPIServer
	V2      *common.Config
	V3      *common.OpenAPIV3Config
}

// Write puts the documents of src into dir. Each of the two parts appears only when it is
// complete; v3, which kubectl wants first, comes first. What is there is kept. Scratch is an
// empty directory on the same file system.
//
//	v3/<group version>.json.gz .pb.gz   with "~" for "/"
//	v2/pb.gz                            protobuf; a message appended to it is merged
//	v2/<n>.json.gz                      JSON in the pieces of jsonPieces
//	v2/names.gz                         definitions and parameters, one per line
func Write(ctx context.Context, dir, scratch string, src Source) error {
	for _, part := range []struct {
		name  string
		write func(context.Context, string) error
	}{{"v3", src.writeV3}, {"v2", src.writeV2}} {
		write := func(out string) error { return part.write(ctx, out) }
		if err := writePart(filepath.Join(scratch, part.name), filepath.Join(dir, part.name), write); err != nil {
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

// writeV3 lets upstream build and encode the v3 documents, and keeps each of them. Protobuf and
// compression are most of the work, so they run beside each other.
func (s Source) writeV3(ctx context.Context, out string) error {
	seen := map[string]bool{}
	var work errgroup.Group
	work.SetLimit(runtime.GOMAXPROCS(0))
	for _, server := range s.Servers {
		m := mux.NewPathRecorderMux("openapi")
		routes.OpenAPI{V3Config: s.V3}.InstallV3(server.Handler.GoRestfulContainer, m)
		l := inproc.New()
		l.Serve(m)
		for _, ws := range server.Handler.GoRestfulContainer.RegisteredWebServices() {
			gv := strings.TrimPrefix(ws.RootPath(), "/")
			if seen[gv] {
				continue
			}
			seen[gv] = true
			data, err := getDocument(ctx, &http.Client{Transport: l}, gv)
			if err != nil {
				return errors.Join(fmt.Errorf("%s: %w", gv, err), work.Wait())
			}
			work.Go(func() error { return writeGroup(filepath.Join(out, fileOf(gv)), data) })
		}
	}
	return work.Wait()
}

func getDocument(ctx context.Context, client *http.Client, gv string) ([]byte, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://scratch/openapi/v3/"+gv, http.NoBody)
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

func (s Source) writeV2(_ context.Context, out string) error {
	var all *spec.Swagger
	for _, server := range s.Servers {
		_, part := routes.OpenAPI{Config: s.V2}.InstallV2(server.Handler.GoRestfulContainer, mux.NewPathRecorderMux("openapi"))
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
