package apiserver

import (
	"bytes"
	"compress/gzip"
	"context"
	"crypto/tls"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"testing"

	openapi_v2 "github.com/google/gnostic-models/openapiv2"
	"google.golang.org/protobuf/proto"
	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	apiextensionsv1 "k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/v1"
	apiextensions "k8s.io/apiextensions-apiserver/pkg/client/clientset/clientset"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/util/intstr"
	"k8s.io/client-go/dynamic"
	"k8s.io/client-go/kubernetes/scheme"
	"k8s.io/client-go/tools/remotecommand"
	apiregistrationv1 "k8s.io/kube-aggregator/pkg/apis/apiregistration/v1"
	aggregator "k8s.io/kube-aggregator/pkg/client/clientset_generated/clientset"
	"sigs.k8s.io/yaml"
)

const widgets = `
apiVersion: apiextensions.k8s.io/v1
kind: CustomResourceDefinition
metadata: {name: widgets.example.com}
spec:
  group: example.com
  scope: Namespaced
  names: {plural: widgets, singular: widget, kind: Widget, listKind: WidgetList}
  versions:
  - name: v1
    served: true
    storage: true
    schema:
      openAPIV3Schema:
        type: object
        properties:
          spec:
            type: object
            properties:
              size: {type: string, default: medium, description: How big it is.}
              count: {type: integer}
            x-kubernetes-validations:
            - {rule: "self.size != 'huge' || self.count < 3", message: huge widgets come in twos at most}
  - {name: v2, served: true, storage: false, schema: {openAPIV3Schema: {type: object, x-kubernetes-preserve-unknown-fields: true}}}
`

const (
	pbV2 = "application/com.github.proto-openapi.spec.v2.v1.0+protobuf"
	pbV3 = "application/com.github.proto-openapi.spec.v3.v1.0+protobuf"
)

// TestExtend covers what is added to a server at run time: custom resources with their OpenAPI
// documents, aggregated APIs, and the agents of nodes.
func TestExtend(t *testing.T) {
	agent := newFakeAgent(t)
	backend := newBackend(t)
	n := start(t, t.TempDir(), func(c *Config) {
		c.Nodes = agent
		c.Dial = backend.dial
	})
	t.Run("custom resource", n.testCustomResource)
	t.Run("openapi v3", n.testOpenAPIV3)
	t.Run("openapi v2", n.testOpenAPIV2)
	t.Run("aggregated", func(t *testing.T) { n.testAggregated(t, backend) })
	t.Run("streams", func(t *testing.T) { n.testStreams(t, agent) })
}

func (n *node) testCustomResource(t *testing.T) {
	ctx := t.Context()
	crd := &apiextensionsv1.CustomResourceDefinition{}
	if err := yaml.UnmarshalStrict([]byte(widgets), crd); err != nil {
		t.Fatal(err)
	}
	c, err := apiextensions.NewForConfig(n.as(t, "admin", "system:masters"))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := c.ApiextensionsV1().CustomResourceDefinitions().Create(ctx, crd, metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	dyn, err := dynamic.NewForConfig(n.as(t, "admin", "system:masters"))
	if err != nil {
		t.Fatal(err)
	}
	res := dyn.Resource(schema.GroupVersionResource{Group: "example.com", Version: "v1", Resource: "widgets"}).Namespace("default")
	widget := func(name string, spec map[string]any) *unstructured.Unstructured {
		return &unstructured.Unstructured{Object: map[string]any{
			"apiVersion": "example.com/v1", "kind": "Widget", "metadata": map[string]any{"name": name}, "spec": spec,
		}}
	}
	var made *unstructured.Unstructured
	eventually(t, "create a widget", func(ctx context.Context) (bool, error) {
		made, err = res.Create(ctx, widget("a", map[string]any{"count": int64(2)}), metav1.CreateOptions{})
		if apierrors.IsNotFound(err) || apierrors.IsServiceUnavailable(err) {
			return false, nil // not established yet
		}
		return true, err
	})
	if size, _, _ := unstructured.NestedString(made.Object, "spec", "size"); size != "medium" {
		t.Errorf("default not set: %v", made.Object)
	}
	_, err = res.Create(ctx, widget("b", map[string]any{"size": "huge", "count": int64(5)}), metav1.CreateOptions{})
	if err == nil || !strings.Contains(err.Error(), "huge widgets come in twos at most") {
		t.Errorf("CEL rule: %v", err)
	}
	_, err = res.Create(ctx, widget("c", map[string]any{"typo": true}), metav1.CreateOptions{FieldValidation: metav1.FieldValidationStrict})
	if err == nil || !strings.Contains(err.Error(), `unknown field "spec.typo"`) {
		t.Errorf("strict validation: %v", err)
	}
}

func (n *node) testOpenAPIV3(t *testing.T) {
	c := n.admin(t).Discovery().OpenAPIV3()
	paths, err := c.Paths()
	if err != nil {
		t.Fatal(err)
	}
	for gv, want := range map[string]string{
		"api/v1":                            "io.k8s.api.core.v1.Pod",
		"apis/apps/v1":                      "io.k8s.api.apps.v1.Deployment",
		"apis/apiregistration.k8s.io/v1":    "io.k8s.kube-aggregator.pkg.apis.apiregistration.v1.APIService",
		"apis/apiextensions.k8s.io/v1":      "io.k8s.apiextensions-apiserver.pkg.apis.apiextensions.v1.CustomResourceDefinition",
		"apis/example.com/v1":               "com.example.v1.Widget",
		"apis/example.com/v2":               "com.example.v2.Widget",
		"apis/rbac.authorization.k8s.io/v1": "io.k8s.api.rbac.v1.Role",
	} {
		p, ok := paths[gv]
		if !ok {
			t.Errorf("%s is not listed", gv)
			continue
		}
		doc, err := p.Schema("application/json")
		if err != nil {
			t.Errorf("%s: %v", gv, err)
			continue
		}
		var parsed struct {
			Components struct {
				Schemas map[string]json.RawMessage `json:"schemas"`
			} `json:"components"`
		}
		if err := json.Unmarshal(doc, &parsed); err != nil || parsed.Components.Schemas[want] == nil {
			t.Errorf("%s lacks %s: %v", gv, want, err)
		}
		if pb, err := p.Schema(pbV3); err != nil || !bytes.Contains(pb, []byte(want)) {
			t.Errorf("%s in protobuf lacks %s: %v", gv, want, err)
		}
	}
	url := paths["apis/apps/v1"].ServerRelativeURL()
	code, _, head := n.get(t, url, n.bearer(t))
	if code != http.StatusOK || !strings.Contains(head.Get("Cache-Control"), "immutable") {
		t.Errorf("%s: %d, Cache-Control %q", url, code, head.Get("Cache-Control"))
	}
	ask := n.bearer(t)
	ask.Set("If-None-Match", head.Get("Etag"))
	if code, _, _ := n.get(t, url, ask); code != http.StatusNotModified {
		t.Errorf("with its ETag: %d, want 304", code)
	}
	if code, body, _ := n.get(t, "/openapi/v3/apis/apps/v1?hash=old", n.bearer(t)); code != http.StatusOK || len(body) == 0 {
		t.Errorf("an old hash: %d, want to end at the document", code)
	}
	ask = n.bearer(t)
	ask.Set("Accept", "text/html")
	if code, _, _ := n.get(t, "/openapi/v3/api/v1", ask); code != http.StatusNotAcceptable {
		t.Errorf("HTML: %d, want 406", code)
	}
	if code, _, _ := n.get(t, "/openapi/v3/apis/none/v1", n.bearer(t)); code != http.StatusNotFound {
		t.Errorf("a group that does not exist: %d, want 404", code)
	}
}

func (n *node) testOpenAPIV2(t *testing.T) {
	type doc struct {
		Swagger     string                     `json:"swagger"`
		Paths       map[string]json.RawMessage `json:"paths"`
		Definitions map[string]json.RawMessage `json:"definitions"`
		Parameters  map[string]json.RawMessage `json:"parameters"`
	}
	_, plain, _ := n.get(t, "/openapi/v2", n.bearer(t))
	var d doc
	dec := json.NewDecoder(strings.NewReader(plain))
	if err := dec.Decode(&d); err != nil {
		t.Fatal(err)
	}
	if d.Swagger != "2.0" || len(d.Parameters) == 0 {
		t.Errorf("swagger %q, %d parameters", d.Swagger, len(d.Parameters))
	}
	for _, name := range []string{"io.k8s.api.core.v1.Pod", "com.example.v1.Widget", "com.example.v2.Widget"} {
		if d.Definitions[name] == nil {
			t.Errorf("no definition of %s", name)
		}
	}
	widgetPath := "/apis/example.com/v1/namespaces/{namespace}/widgets/{name}"
	if d.Paths[widgetPath] == nil || d.Paths["/api/v1/pods"] == nil {
		t.Error("paths are missing")
	}
	for _, ref := range refs(plain) {
		if name, ok := strings.CutPrefix(ref, "#/definitions/"); ok && d.Definitions[name] == nil {
			t.Errorf("reference to %s, which is not defined", ref)
		}
		if name, ok := strings.CutPrefix(ref, "#/parameters/"); ok && d.Parameters[name] == nil {
			t.Errorf("reference to %s, which is not defined", ref)
		}
	}
	ask := n.bearer(t)
	ask.Set("Accept-Encoding", "gzip")
	_, zipped, head := n.get(t, "/openapi/v2", ask)
	z, err := gzip.NewReader(strings.NewReader(zipped))
	if err != nil || head.Get("Content-Encoding") != "gzip" {
		t.Fatalf("gzip: %v, %v", err, head)
	}
	if data, err := io.ReadAll(z); err != nil || string(data) != plain {
		t.Errorf("gzipped document differs: %v", err)
	}
	ask = n.bearer(t)
	ask.Set("Accept", pbV2)
	_, pb, _ := n.get(t, "/openapi/v2", ask)
	m := &openapi_v2.Document{}
	if err := proto.Unmarshal([]byte(pb), m); err != nil {
		t.Fatal(err)
	}
	names := map[string]int{}
	for _, s := range m.GetDefinitions().GetAdditionalProperties() {
		names[s.GetName()]++
	}
	if len(names) != len(d.Definitions) || names["com.example.v1.Widget"] != 1 || names["io.k8s.apimachinery.pkg.apis.meta.v1.ObjectMeta"] != 1 {
		t.Errorf("protobuf has %d definitions, JSON %d", len(names), len(d.Definitions))
	}
	if got := len(m.GetPaths().GetPath()); got != len(d.Paths) {
		t.Errorf("protobuf has %d paths, JSON %d", got, len(d.Paths))
	}
}

// refs finds every "$ref" in a JSON document.
func refs(doc string) []string {
	var out []string
	for _, part := range strings.Split(doc, `"$ref":"`)[1:] {
		ref, _, _ := strings.Cut(part, `"`)
		out = append(out, ref)
	}
	slices.Sort(out)
	return slices.Compact(out)
}

// backend is an API server of somebody else's, behind a Service.
type backend struct {
	*httptest.Server
	mu    sync.Mutex
	users []string // of requests, as the front proxy said
}

func newBackend(t *testing.T) *backend {
	t.Helper()
	b := &backend{}
	b.Server = httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.TLS != nil && len(r.TLS.PeerCertificates) > 0 {
			b.mu.Lock()
			defer b.mu.Unlock()
			b.users = append(b.users, r.TLS.PeerCertificates[0].Subject.CommonName+" for "+r.Header.Get("X-Remote-User"))
		}
		w.Header().Set("Content-Type", "application/json")
		if r.URL.Path == "/apis/dummy.example.com/v1" {
			_, _ = fmt.Fprint(w, `{"kind":"APIResourceList","apiVersion":"v1","groupVersion":"dummy.example.com/v1","resources":[]}`)
			return
		}
		_, _ = fmt.Fprintf(w, `{"path":%q}`, r.URL.Path)
	}))
	b.TLS = &tls.Config{ClientAuth: tls.RequestClientCert, MinVersion: tls.VersionTLS12}
	b.StartTLS()
	t.Cleanup(b.Close)
	return b
}

// dial stands for the pod network: every address is the backend.
func (b *backend) dial(ctx context.Context, network, _ string) (net.Conn, error) {
	return (&net.Dialer{}).DialContext(ctx, network, b.Listener.Addr().String())
}

func (n *node) testAggregated(t *testing.T, b *backend) {
	t.Helper()
	ctx, c := t.Context(), n.admin(t)
	svc := &corev1.Service{ObjectMeta: metav1.ObjectMeta{Name: "dummy"}, Spec: corev1.ServiceSpec{
		Ports: []corev1.ServicePort{{Name: "https", Port: 443, TargetPort: intstr.FromInt32(8443)}},
	}}
	if _, err := c.CoreV1().Services("default").Create(ctx, svc, metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	ready, port, name := true, int32(8443), "https"
	slice := &discoveryv1.EndpointSlice{
		ObjectMeta:  metav1.ObjectMeta{Name: "dummy", Labels: map[string]string{discoveryv1.LabelServiceName: "dummy"}},
		AddressType: discoveryv1.AddressTypeIPv4,
		Endpoints:   []discoveryv1.Endpoint{{Addresses: []string{"10.244.0.77"}, Conditions: discoveryv1.EndpointConditions{Ready: &ready}}},
		Ports:       []discoveryv1.EndpointPort{{Name: &name, Port: &port}},
	}
	if _, err := c.DiscoveryV1().EndpointSlices("default").Create(ctx, slice, metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	ac, err := aggregator.NewForConfig(n.as(t, "admin", "system:masters"))
	if err != nil {
		t.Fatal(err)
	}
	api := &apiregistrationv1.APIService{ObjectMeta: metav1.ObjectMeta{Name: "v1.dummy.example.com"}, Spec: apiregistrationv1.APIServiceSpec{
		Group: "dummy.example.com", Version: "v1", GroupPriorityMinimum: 100, VersionPriority: 10, InsecureSkipTLSVerify: true,
		Service: &apiregistrationv1.ServiceReference{Namespace: "default", Name: "dummy"},
	}}
	if _, err := ac.ApiregistrationV1().APIServices().Create(ctx, api, metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the API is available", func(ctx context.Context) (bool, error) {
		body, err := c.RESTClient().Get().AbsPath("/apis/dummy.example.com/v1/things/x").DoRaw(ctx)
		return err == nil && strings.Contains(string(body), "/apis/dummy.example.com/v1/things/x"), nil
	})
	b.mu.Lock()
	defer b.mu.Unlock()
	if !slices.Contains(b.users, "front-proxy-client for admin") {
		t.Errorf("the backend saw %v", b.users)
	}
}

func (n *node) testStreams(t *testing.T, a *fakeAgent) {
	t.Helper()
	ctx, c := t.Context(), n.admin(t)
	sa := &corev1.ServiceAccount{ObjectMeta: metav1.ObjectMeta{Name: "default"}}
	if _, err := c.CoreV1().ServiceAccounts("default").Create(ctx, sa, metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	if _, err := c.CoreV1().Nodes().Create(ctx, &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: "far"}}, metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	pod := &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Name: "p"}, Spec: corev1.PodSpec{NodeName: "far", Containers: []corev1.Container{{Name: "c", Image: "x"}}}}
	eventually(t, "create a pod", func(ctx context.Context) (bool, error) {
		_, err := c.CoreV1().Pods("default").Create(ctx, pod, metav1.CreateOptions{})
		return err == nil, nil
	})
	logs, err := c.CoreV1().Pods("default").GetLogs("p", &corev1.PodLogOptions{}).DoRaw(ctx)
	if err != nil || string(logs) != "log of default/p/c\n" {
		t.Errorf("logs: %q, %v", logs, err)
	}
	body, err := c.RESTClient().Get().AbsPath("/api/v1/nodes/far/proxy/healthz").DoRaw(ctx)
	if err != nil || string(body) != "ok" {
		t.Errorf("nodes/proxy: %q, %v", body, err)
	}
	if _, err := c.RESTClient().Get().AbsPath("/api/v1/nodes/nobody/proxy/healthz").DoRaw(ctx); !apierrors.IsNotFound(err) {
		t.Errorf("proxy to a node that does not exist: %v", err)
	}
	req := c.CoreV1().RESTClient().Post().Resource("pods").Namespace("default").Name("p").SubResource("exec").
		VersionedParams(&corev1.PodExecOptions{Container: "c", Command: []string{"cat"}, Stdin: true, Stdout: true}, scheme.ParameterCodec)
	cfg := n.as(t, "admin", "system:masters")
	ws, err := remotecommand.NewWebSocketExecutor(cfg, "GET", req.URL().String())
	if err != nil {
		t.Fatal(err)
	}
	spdy, err := remotecommand.NewSPDYExecutor(cfg, "POST", req.URL())
	if err != nil {
		t.Fatal(err)
	}
	for name, e := range map[string]remotecommand.Executor{"websocket": ws, "spdy": spdy} {
		var out bytes.Buffer
		err := e.StreamWithContext(ctx, remotecommand.StreamOptions{Stdin: strings.NewReader("hello"), Stdout: &out})
		if err != nil || out.String() != "hello" {
			t.Errorf("exec over %s: %q, %v", name, out.String(), err)
		}
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.dialed["far"] < 3 || len(a.dialed) != 1 {
		t.Errorf("dialed %v", a.dialed)
	}
}
