package openapi

import (
	"bufio"
	"compress/gzip"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"

	apiextensionshelpers "k8s.io/apiextensions-apiserver/pkg/apihelpers"
	apiextensionsv1 "k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/v1"
	listers "k8s.io/apiextensions-apiserver/pkg/client/listers/apiextensions/v1"
	"k8s.io/apiextensions-apiserver/pkg/controller/openapi/builder"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/kube-openapi/pkg/handler"
	"k8s.io/kube-openapi/pkg/handler3"
	"k8s.io/kube-openapi/pkg/spec3"
	"k8s.io/kube-openapi/pkg/validation/spec"
)

// crdSource finds the custom resources that have OpenAPI documents.
type crdSource struct {
	lister listers.CustomResourceDefinitionLister
}

// crdVersion is one served version of an established CRD.
type crdVersion struct {
	crd     *apiextensionsv1.CustomResourceDefinition
	version string
}

type crdVersions []crdVersion

// established returns every served version, in a stable order.
func (s crdSource) established() crdVersions {
	list, err := s.lister.List(labels.Everything())
	if err != nil {
		return nil // a lister over memory has no errors
	}
	slices.SortFunc(list, func(a, b *apiextensionsv1.CustomResourceDefinition) int { return strings.Compare(a.Name, b.Name) })
	var out crdVersions
	for _, crd := range list {
		if !apiextensionshelpers.IsCRDConditionTrue(crd, apiextensionsv1.Established) {
			continue
		}
		for _, v := range crd.Spec.Versions {
			if v.Served {
				out = append(out, crdVersion{crd, v.Name})
			}
		}
	}
	return out
}

// groups sorts them by group version, named as in the v3 index.
func (s crdSource) groups() map[string]crdVersions {
	out := map[string]crdVersions{}
	for _, v := range s.established() {
		gv := "apis/" + v.crd.Spec.Group + "/" + v.version
		out[gv] = append(out[gv], v)
	}
	return out
}

// hash changes whenever one of the specifications does.
func (l crdVersions) hash() string {
	h := sha256.New()
	for _, v := range l {
		_, _ = fmt.Fprintf(h, "%s/%s/%d/%s\n", v.crd.Name, v.crd.UID, v.crd.Generation, v.version)
	}
	return strings.ToUpper(hex.EncodeToString(h.Sum(nil)[:16]))
}

// v3 builds the document of one group version.
func (l crdVersions) v3(protobuf bool) ([]byte, error) {
	var specs []*spec3.OpenAPI
	for _, v := range l {
		s, err := builder.BuildOpenAPIV3(v.crd, v.version, builder.Options{IncludeSelectableFields: true})
		if err != nil {
			return nil, fmt.Errorf("%s %s: %w", v.crd.Name, v.version, err)
		}
		specs = append(specs, s)
	}
	merged, err := builder.MergeSpecsV3(specs...)
	if err != nil {
		return nil, err
	}
	data, err := json.Marshal(merged)
	if err != nil || !protobuf {
		return data, err
	}
	return handler3.ToV3ProtoBinary(data)
}

// v2Extra is what custom resources add to the v2 document.
type v2Extra struct {
	swagger *spec.Swagger // nil when there is nothing to add
	members [][]byte      // one per pieceKeys, each `,"name":value...` or empty
}

// v2 builds the additions of all custom resources to the document in dir.
func (l crdVersions) v2(dir string) (*v2Extra, error) {
	extra := &v2Extra{members: make([][]byte, len(pieceKeys()))}
	if len(l) == 0 {
		return extra, nil
	}
	known, err := readNames(filepath.Join(dir, "names.gz"))
	if err != nil {
		return nil, err
	}
	all := &spec.Swagger{SwaggerProps: spec.SwaggerProps{
		Swagger: "2.0", Info: &spec.Info{InfoProps: spec.InfoProps{Title: "Kubernetes", Version: "unversioned"}},
		Paths: &spec.Paths{Paths: map[string]spec.PathItem{}}, Definitions: spec.Definitions{}, Parameters: map[string]spec.Parameter{},
	}}
	for _, v := range l {
		s, err := builder.BuildOpenAPIV2(v.crd, v.version, builder.Options{V2: true, IncludeSelectableFields: true})
		if err != nil {
			return nil, fmt.Errorf("%s %s: %w", v.crd.Name, v.version, err)
		}
		addNew(all.Paths.Paths, s.Paths.Paths, nil)
		addNew(all.Definitions, s.Definitions, known)
		addNew(all.Parameters, s.Parameters, known)
	}
	extra.swagger = all
	for i, m := range []any{all.Paths.Paths, all.Definitions, all.Parameters} {
		if extra.members[i], err = jsonMembers(m); err != nil {
			return nil, err
		}
	}
	return extra, nil
}

func addNew[V any, M ~map[string]V](to, from M, known map[string]bool) {
	for name, v := range from {
		if !known[name] {
			to[name] = v
		}
	}
}

// jsonMembers encodes the members of a map with a leading comma.
func jsonMembers(m any) ([]byte, error) {
	data, err := json.Marshal(m)
	if err != nil || len(data) <= len("{}") {
		return nil, err
	}
	data[0] = ','
	return data[:len(data)-1], nil
}

// protobuf encodes the additions as a message that merges into the one it is appended to: that
// is how protobuf reads joined messages. A repeated value for the title does no harm.
func (e *v2Extra) protobuf() ([]byte, error) {
	if e.swagger == nil {
		return nil, nil
	}
	data, err := json.Marshal(e.swagger)
	if err != nil {
		return nil, err
	}
	return handler.ToProtoBinary(data)
}

func readNames(file string) (_ map[string]bool, err error) {
	f, err := os.Open(file) // #nosec G304 -- our own directory
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	z, err := gzip.NewReader(f)
	if err != nil {
		return nil, fmt.Errorf("read %s: %w", file, err)
	}
	names := map[string]bool{}
	lines := bufio.NewScanner(z)
	for lines.Scan() {
		names[lines.Text()] = true
	}
	return names, lines.Err()
}
