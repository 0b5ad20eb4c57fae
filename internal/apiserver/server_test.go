package apiserver

import (
	"bytes"
	"context"
	"crypto/x509"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"maps"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"sort"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	authenticationv1 "k8s.io/api/authentication/v1"
	corev1 "k8s.io/api/core/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/watch"
	applycorev1 "k8s.io/client-go/applyconfigurations/core/v1"
	"k8s.io/kubernetes/pkg/controlplane"
	"k8s.io/kubernetes/pkg/kubeapiserver/options"

	"github.com/podman-swarm/podman-swarm/internal/pki"
)

var update = flag.Bool("update", false, "accept what the server says")

// TestServer looks at one server from many sides.
func TestServer(t *testing.T) {
	n := start(t, t.TempDir(), func(c *Config) {
		c.Refuse = func(cert *x509.Certificate) error {
			if cert.Subject.CommonName == "system:node:removed" {
				return errors.New("it was removed")
			}
			return nil
		}
	})
	t.Run("groups", n.testGroups)
	t.Run("resources", n.testResources)
	t.Run("version", n.testVersion)
	t.Run("anonymous", n.testAnonymous)
	t.Run("removed", n.testRemoved)
	t.Run("rbac", n.testRBAC)
	t.Run("bootstrap", n.testBootstrap)
	t.Run("kubernetes service", n.testKubernetesService)
	t.Run("watch", n.testWatch)
	t.Run("apply", n.testApply)
	t.Run("tokens", n.testTokens)
	t.Run("front proxy", n.testFrontProxy)
	t.Run("admission", n.testAdmission)
	t.Run("loopback", n.testLoopback)
}

// testGroups compares with upstream's own list, so a new group cannot be forgotten.
func (n *node) testGroups(t *testing.T) {
	list, err := n.admin(t).Discovery().ServerGroups()
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, g := range list.Groups {
		for _, v := range g.Versions {
			got = append(got, v.GroupVersion)
		}
	}
	want := []string{"apiextensions.k8s.io/v1", "apiregistration.k8s.io/v1"} // the other two servers
	for gv, on := range controlplane.DefaultAPIResourceConfigSource().GroupVersionConfigs {
		if on {
			want = append(want, gv.String())
		}
	}
	sort.Strings(got)
	sort.Strings(want)
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("group versions (-upstream +ours):\n%s", diff)
	}
}

// testResources keeps the list that docs/compatibility.md is made of.
func (n *node) testResources(t *testing.T) {
	_, lists, err := n.admin(t).Discovery().ServerGroupsAndResources()
	if err != nil {
		t.Fatal(err)
	}
	var lines []string
	for _, l := range lists {
		for _, r := range l.APIResources {
			lines = append(lines, fmt.Sprintf("%s %s %s", l.GroupVersion, r.Name, strings.Join(r.Verbs, ",")))
		}
	}
	sort.Strings(lines)
	got := strings.Join(lines, "\n") + "\n"
	file := filepath.Join("testdata", "resources.txt")
	if *update {
		if err := os.WriteFile(file, []byte(got), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(string(want), got); diff != "" {
		t.Errorf("resources changed; go test -update accepts:\n%s", diff)
	}
}

func (n *node) testVersion(t *testing.T) {
	v, err := n.admin(t).Discovery().ServerVersion()
	if err != nil {
		t.Fatal(err)
	}
	if v.Major != "1" || v.Minor != "37" || !strings.HasPrefix(v.GitVersion, "v1.37.") || !strings.HasSuffix(v.GitVersion, "+podman-swarm.v0.1.0-test") {
		t.Errorf("got %+v", v)
	}
}

func (n *node) testAnonymous(t *testing.T) {
	tests := map[string]int{
		"/livez": 200, "/readyz": 200, "/healthz": 200, "/readyz?verbose": 200,
		"/api": 401, "/apis": 401, "/version": 401, "/openapi/v3": 401, "/metrics": 401, "/": 401,
		"/api/v1/namespaces": 401, "/openid/v1/jwks": 401, "/.well-known/openid-configuration": 401,
	}
	for path, want := range tests {
		if got, _, _ := n.get(t, path, nil); got != want {
			t.Errorf("%s: %d, want %d", path, got, want)
		}
	}
}

// testRemoved: what a certificate of the authority says is worth nothing when its owner was removed, and
// the answer is 401, whatever else the request shows.
func (n *node) testRemoved(t *testing.T) {
	for name, want := range map[string]bool{"system:node:n1": true, "system:node:removed": false} {
		node := &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: strings.TrimPrefix(name, "system:node:")}}
		nodes := client(t, n.as(t, name, "system:nodes")).CoreV1().Nodes()
		_, err := nodes.Create(t.Context(), node, metav1.CreateOptions{DryRun: []string{metav1.DryRunAll}})
		if (err == nil) != want || err != nil && !apierrors.IsUnauthorized(err) {
			t.Errorf("%s creates its node: %v", name, err)
		}
	}
}

func (n *node) testRBAC(t *testing.T) {
	ctx := t.Context()
	bob := client(t, n.as(t, "bob"))
	if _, err := bob.CoreV1().Pods("default").List(ctx, metav1.ListOptions{}); !apierrors.IsForbidden(err) {
		t.Errorf("bob lists pods: %v, want forbidden", err)
	}
	if _, err := bob.Discovery().ServerVersion(); err != nil {
		t.Errorf("bob asks for the version: %v", err)
	}
	_, err := n.admin(t).RbacV1().RoleBindings("default").Create(ctx, &rbacv1.RoleBinding{
		ObjectMeta: metav1.ObjectMeta{Name: "bob"},
		RoleRef:    rbacv1.RoleRef{APIGroup: rbacv1.GroupName, Kind: "ClusterRole", Name: "system:aggregate-to-view"},
		Subjects:   []rbacv1.Subject{{Kind: rbacv1.UserKind, APIGroup: rbacv1.GroupName, Name: "bob"}},
	}, metav1.CreateOptions{})
	if err != nil {
		t.Fatal(err)
	}
	eventually(t, "bob may view", func(ctx context.Context) (bool, error) {
		_, err := bob.CoreV1().Pods("default").List(ctx, metav1.ListOptions{})
		return err == nil, nil
	})
	if _, err := bob.CoreV1().Secrets("default").List(ctx, metav1.ListOptions{}); !apierrors.IsForbidden(err) {
		t.Errorf("bob lists secrets: %v, want forbidden", err)
	}
	// The Node authorizer and NodeRestriction: a node may write its own object only.
	kubelet := client(t, n.as(t, "system:node:n1", "system:nodes"))
	for name, want := range map[string]bool{"n1": true, "n2": false} {
		_, err := kubelet.CoreV1().Nodes().Create(ctx, &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: name}}, metav1.CreateOptions{})
		if (err == nil) != want {
			t.Errorf("node n1 creates node %s: %v", name, err)
		}
	}
}

func (n *node) testBootstrap(t *testing.T) {
	ctx, c := t.Context(), n.admin(t)
	for _, ns := range []string{"default", "kube-system", "kube-public", "kube-node-lease"} {
		if _, err := c.CoreV1().Namespaces().Get(ctx, ns, metav1.GetOptions{}); err != nil {
			t.Error(err)
		}
	}
	if _, err := c.RbacV1().ClusterRoles().Get(ctx, "cluster-admin", metav1.GetOptions{}); err != nil {
		t.Error(err)
	}
	if _, err := c.SchedulingV1().PriorityClasses().Get(ctx, "system-node-critical", metav1.GetOptions{}); err != nil {
		t.Error(err)
	}
	if _, err := c.FlowcontrolV1().FlowSchemas().Get(ctx, "catch-all", metav1.GetOptions{}); err != nil {
		t.Error(err)
	}
	eventually(t, "extension-apiserver-authentication", func(ctx context.Context) (bool, error) {
		cm, err := c.CoreV1().ConfigMaps("kube-system").Get(ctx, "extension-apiserver-authentication", metav1.GetOptions{})
		return err == nil && strings.Contains(cm.Data["requestheader-client-ca-file"], "BEGIN CERTIFICATE") &&
			cm.Data["client-ca-file"] == string(n.keys.CAPEM()), nil
	})
}

func (n *node) testKubernetesService(t *testing.T) {
	ctx, c := t.Context(), n.admin(t)
	eventually(t, "service kubernetes", func(ctx context.Context) (bool, error) {
		_, err := c.DiscoveryV1().EndpointSlices("default").Get(ctx, "kubernetes", metav1.GetOptions{})
		return err == nil, nil
	})
	svc, err := c.CoreV1().Services("default").Get(ctx, "kubernetes", metav1.GetOptions{})
	if err != nil || svc.Spec.ClusterIP != "10.43.0.1" {
		t.Errorf("got %v, %v; want cluster IP 10.43.0.1", svc.Spec.ClusterIP, err)
	}
	slice, err := c.DiscoveryV1().EndpointSlices("default").Get(ctx, "kubernetes", metav1.GetOptions{})
	if err != nil {
		t.Fatal(err)
	}
	if e := slice.Endpoints; len(e) != 1 || e[0].Addresses[0] != "192.0.2.10" || *e[0].NodeName != "n1" {
		t.Errorf("endpoints %v", e)
	}
	cidr, err := c.NetworkingV1().ServiceCIDRs().Get(ctx, "kubernetes", metav1.GetOptions{})
	if err != nil || !slices.Equal(cidr.Spec.CIDRs, []string{"10.43.0.0/16"}) {
		t.Errorf("service CIDR %v, %v", cidr, err)
	}
}

func (n *node) testWatch(t *testing.T) {
	ctx, c := t.Context(), n.admin(t).CoreV1().ConfigMaps("default")
	list, err := c.List(ctx, metav1.ListOptions{})
	if err != nil {
		t.Fatal(err)
	}
	w, err := c.Watch(ctx, metav1.ListOptions{ResourceVersion: list.ResourceVersion})
	if err != nil {
		t.Fatal(err)
	}
	defer w.Stop()
	cm := &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Name: "watched"}, Data: map[string]string{"a": "1"}}
	if cm, err = c.Create(ctx, cm, metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	cm.Data["a"] = "2"
	if _, err := c.Update(ctx, cm, metav1.UpdateOptions{}); err != nil {
		t.Fatal(err)
	}
	if err := c.Delete(ctx, "watched", metav1.DeleteOptions{}); err != nil {
		t.Fatal(err)
	}
	for _, want := range []watch.EventType{watch.Added, watch.Modified, watch.Deleted} {
		if e := <-w.ResultChan(); e.Type != want {
			t.Errorf("got %v, want %v", e.Type, want)
		}
	}
}

// testApply shows that server-side apply knows types: a list with map keys is merged by owner.
func (n *node) testApply(t *testing.T) {
	ctx, c := t.Context(), n.admin(t).CoreV1().Services("default")
	port := func(name string, p int32) *applycorev1.ServicePortApplyConfiguration {
		return applycorev1.ServicePort().WithName(name).WithPort(p).WithProtocol(corev1.ProtocolTCP)
	}
	a := applycorev1.Service("applied", "default").WithSpec(applycorev1.ServiceSpec().WithPorts(port("http", 80)))
	b := applycorev1.Service("applied", "default").WithSpec(applycorev1.ServiceSpec().WithPorts(port("https", 443)))
	if _, err := c.Apply(ctx, a, metav1.ApplyOptions{FieldManager: "a"}); err != nil {
		t.Fatal(err)
	}
	svc, err := c.Apply(ctx, b, metav1.ApplyOptions{FieldManager: "b"})
	if err != nil {
		t.Fatal(err)
	}
	if len(svc.Spec.Ports) != 2 {
		t.Errorf("ports %v, want both managers'", svc.Spec.Ports)
	}
	conflict := applycorev1.Service("applied", "default").WithSpec(applycorev1.ServiceSpec().WithPorts(port("http", 80).WithNodePort(0)).WithSessionAffinity(corev1.ServiceAffinityClientIP))
	if _, err := c.Apply(ctx, conflict, metav1.ApplyOptions{FieldManager: "a"}); err != nil {
		t.Errorf("apply to a field nobody set: %v", err)
	}
	other := applycorev1.Service("applied", "default").WithSpec(applycorev1.ServiceSpec().WithSessionAffinity(corev1.ServiceAffinityNone))
	if _, err := c.Apply(ctx, other, metav1.ApplyOptions{FieldManager: "c"}); !apierrors.IsConflict(err) {
		t.Errorf("apply over another manager's field: %v, want a conflict", err)
	}
}

func (n *node) testTokens(t *testing.T) {
	ctx, c := t.Context(), n.admin(t)
	sa := &corev1.ServiceAccount{ObjectMeta: metav1.ObjectMeta{Name: "robot"}}
	if _, err := c.CoreV1().ServiceAccounts("default").Create(ctx, sa, metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	tr, err := c.CoreV1().ServiceAccounts("default").CreateToken(ctx, "robot", &authenticationv1.TokenRequest{}, metav1.CreateOptions{})
	if err != nil {
		t.Fatal(err)
	}
	review := &authenticationv1.TokenReview{Spec: authenticationv1.TokenReviewSpec{Token: tr.Status.Token}}
	if review, err = c.AuthenticationV1().TokenReviews().Create(ctx, review, metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	if u := review.Status.User.Username; !review.Status.Authenticated || u != "system:serviceaccount:default:robot" {
		t.Errorf("review says %+v", review.Status)
	}
	bearer := http.Header{"Authorization": {"Bearer " + tr.Status.Token}}
	if code, _, _ := n.get(t, "/version", bearer); code != http.StatusOK {
		t.Errorf("version with a token: %d", code)
	}
	code, body, _ := n.get(t, "/.well-known/openid-configuration", bearer)
	var doc struct {
		Issuer string `json:"issuer"`
		JWKS   string `json:"jwks_uri"`
	}
	if err := json.Unmarshal([]byte(body), &doc); err != nil || code != http.StatusOK || doc.Issuer != issuer || doc.JWKS != issuer+"/openid/v1/jwks" {
		t.Errorf("discovery document: %d %s", code, body)
	}
	if code, body, _ := n.get(t, "/openid/v1/jwks", bearer); code != http.StatusOK || !strings.Contains(body, `"kty":"EC"`) {
		t.Errorf("key set: %d %s", code, body)
	}
	forged := tr.Status.Token[:len(tr.Status.Token)-8] + "AAAAAAAA"
	if code, _, _ := n.get(t, "/version", http.Header{"Authorization": {"Bearer " + forged}}); code != http.StatusUnauthorized {
		t.Errorf("forged token: %d", code)
	}
}

// testFrontProxy shows that identities in headers need the front proxy's certificate.
func (n *node) testFrontProxy(t *testing.T) {
	remote := http.Header{"X-Remote-User": {"admin"}, "X-Remote-Group": {"system:masters"}}
	if code, _, _ := n.get(t, "/api", remote); code != http.StatusUnauthorized {
		t.Errorf("headers without a certificate: %d", code)
	}
	whoami := func(cert, key []byte) (string, error) {
		c := n.as(t, "unused")
		c.CertData, c.KeyData = cert, key
		c.Wrap(func(next http.RoundTripper) http.RoundTripper {
			return roundTripper(func(r *http.Request) (*http.Response, error) {
				r = r.Clone(r.Context())
				for k, v := range remote {
					r.Header[k] = v
				}
				return next.RoundTrip(r)
			})
		})
		self, err := client(t, c).AuthenticationV1().SelfSubjectReviews().Create(t.Context(), &authenticationv1.SelfSubjectReview{}, metav1.CreateOptions{})
		if err != nil {
			return "", err
		}
		return self.Status.UserInfo.Username, nil
	}
	cert, key, err := n.keys.ClientCert(pki.FrontProxyClient) // right name, wrong CA
	if err != nil {
		t.Fatal(err)
	}
	if user, err := whoami(cert, key); err != nil || user != pki.FrontProxyClient {
		t.Errorf("impostor is %q, %v; the headers must not count", user, err)
	}
	certFile, keyFile, err := n.keys.FrontProxy()
	if err != nil {
		t.Fatal(err)
	}
	cert, err = os.ReadFile(certFile)
	if err != nil {
		t.Fatal(err)
	}
	key, err = os.ReadFile(keyFile)
	if err != nil {
		t.Fatal(err)
	}
	if user, err := whoami(cert, key); err != nil || user != "admin" {
		t.Errorf("front proxy speaks for %q, %v; want admin", user, err)
	}
}

type roundTripper func(*http.Request) (*http.Response, error)

func (f roundTripper) RoundTrip(r *http.Request) (*http.Response, error) { return f(r) }

func (n *node) testAdmission(t *testing.T) {
	ctx, c := t.Context(), n.admin(t)
	ns := &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: "strict", Labels: map[string]string{"pod-security.kubernetes.io/enforce": "restricted"}}}
	if _, err := c.CoreV1().Namespaces().Create(ctx, ns, metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	sa := &corev1.ServiceAccount{ObjectMeta: metav1.ObjectMeta{Name: "default"}}
	if _, err := c.CoreV1().ServiceAccounts("strict").Create(ctx, sa, metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	pod := &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Name: "p"}, Spec: corev1.PodSpec{Containers: []corev1.Container{{Name: "c", Image: "x"}}}}
	if _, err := c.CoreV1().Pods("strict").Create(ctx, pod, metav1.CreateOptions{}); err == nil || !strings.Contains(err.Error(), "PodSecurity") {
		t.Errorf("got %v, want a refusal by PodSecurity", err)
	}
	if _, err := c.CoreV1().Pods("nowhere").Create(ctx, pod, metav1.CreateOptions{}); !apierrors.IsNotFound(err) {
		t.Errorf("pod in a namespace that does not exist: %v", err)
	}
	pod.Spec.SecurityContext = restricted()
	pod.Spec.Containers[0].SecurityContext = &corev1.SecurityContext{
		AllowPrivilegeEscalation: new(bool), Capabilities: &corev1.Capabilities{Drop: []corev1.Capability{"ALL"}},
	}
	got, err := c.CoreV1().Pods("strict").Create(ctx, pod, metav1.CreateOptions{})
	if err != nil {
		t.Fatal(err)
	}
	tolerated := map[string]int64{}
	for _, x := range got.Spec.Tolerations {
		tolerated[x.Key+":"+string(x.Effect)] = *x.TolerationSeconds
	}
	if want := map[string]int64{"node.kubernetes.io/not-ready:NoExecute": 300, "node.kubernetes.io/unreachable:NoExecute": 1}; !maps.Equal(tolerated, want) {
		t.Errorf("a pod tolerates %v, want %v", tolerated, want)
	}
	// Every plugin that is on by default upstream, and NodeRestriction.
	off := options.DefaultOffAdmissionPlugins()
	var want []string
	for _, p := range options.AllOrderedPlugins {
		if !off.Has(p) || p == "NodeRestriction" {
			want = append(want, p)
		}
	}
	_, metrics, _ := n.get(t, "/metrics", n.bearer(t))
	for _, p := range []string{"PodSecurity", "ServiceAccount", "NodeRestriction", "LimitRanger"} {
		if !slices.Contains(want, p) || !strings.Contains(metrics, `name="`+p+`"`) {
			t.Errorf("admission plugin %s was not at work", p)
		}
	}
}

// restricted is what the Pod Security Standard of that name demands of a pod.
func restricted() *corev1.PodSecurityContext {
	yes, user := true, int64(1000)
	return &corev1.PodSecurityContext{
		RunAsNonRoot: &yes, RunAsUser: &user, SeccompProfile: &corev1.SeccompProfile{Type: corev1.SeccompProfileTypeRuntimeDefault},
	}
}

// bearer is a header of somebody who may see metrics.
func (n *node) bearer(t *testing.T) http.Header {
	t.Helper()
	return http.Header{"Authorization": {"Bearer " + n.Loopback().BearerToken}}
}

func (n *node) testLoopback(t *testing.T) {
	ctx, c := t.Context(), client(t, n.Loopback())
	self, err := c.AuthenticationV1().SelfSubjectReviews().Create(ctx, &authenticationv1.SelfSubjectReview{}, metav1.CreateOptions{})
	if err != nil || !slices.Contains(self.Status.UserInfo.Groups, "system:masters") {
		t.Errorf("loopback is %+v, %v", self, err)
	}
	big := bytes.Repeat([]byte("x"), 900<<10) // many times the pipe's limit
	cm := &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Name: "big"}, BinaryData: map[string][]byte{"x": big}}
	if _, err := c.CoreV1().ConfigMaps("default").Create(ctx, cm, metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	got, err := c.CoreV1().ConfigMaps("default").Get(ctx, "big", metav1.GetOptions{})
	if err != nil || !bytes.Equal(got.BinaryData["x"], big) {
		t.Errorf("big object came back changed: %v", err)
	}
	short, cancel := context.WithCancel(ctx)
	w, err := c.CoreV1().ConfigMaps("default").Watch(short, metav1.ListOptions{})
	if err != nil {
		t.Fatal(err)
	}
	cancel()
	for range w.ResultChan() {
	}
}
