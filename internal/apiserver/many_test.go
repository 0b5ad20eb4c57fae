package apiserver

import (
	"context"
	"fmt"
	"net/http"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"

	corev1 "k8s.io/api/core/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"
)

// TestManyServers has two servers over one store.
func TestManyServers(t *testing.T) {
	first := start(t, t.TempDir(), withExtra)
	second := first.beside(t, "n2", netip.MustParseAddr("192.0.2.11"))
	clients := []*kubernetes.Clientset{client(t, first.Loopback()), client(t, second.Loopback())}
	t.Run("node ports", func(t *testing.T) { testOnePort(t, clients) })
	t.Run("kubernetes endpoints", func(t *testing.T) { testBothAddresses(t, clients[0]) })
	t.Run("extra handlers", func(t *testing.T) { testExtra(t, first) })
}

// beside runs a second server over the same store until the test ends.
func (n *node) beside(t *testing.T, name string, addr netip.Addr) *Server {
	t.Helper()
	ctx, cancel := context.WithCancel(context.WithoutCancel(t.Context()))
	c := n.config
	c.DataDir, c.NodeName, c.Advertise, c.Listen = filepath.Join(t.TempDir(), name), name, addr, "127.0.0.1:0"
	if err := os.MkdirAll(c.DataDir, 0o700); err != nil {
		t.Fatal(err)
	}
	s, err := New(ctx, c)
	if err != nil {
		t.Fatal(err)
	}
	var running sync.WaitGroup
	running.Go(func() {
		if err := s.Run(ctx); err != nil {
			t.Errorf("run the second server: %v", err)
		}
	})
	t.Cleanup(func() { cancel(); running.Wait() })
	select {
	case <-s.Ready():
	case <-t.Context().Done():
		t.Fatal("not ready")
	}
	return s
}

// testOnePort has every port asked for through both servers at once.
func testOnePort(t *testing.T, clients []*kubernetes.Clientset) {
	t.Helper()
	const ports = 20
	var mu sync.Mutex
	made := map[int32][]string{}
	var g sync.WaitGroup
	for i, c := range clients {
		for port := int32(30100); port < 30100+ports; port++ {
			g.Go(func() {
				name := fmt.Sprintf("s-%d-%d", port, i)
				s := &corev1.Service{ObjectMeta: metav1.ObjectMeta{Name: name}, Spec: nodePortSpec(port)}
				_, err := c.CoreV1().Services("default").Create(t.Context(), s, metav1.CreateOptions{})
				if err != nil && !apierrors.IsInvalid(err) {
					t.Errorf("%s: %v", name, err)
				}
				if err == nil {
					mu.Lock()
					made[port] = append(made[port], name)
					mu.Unlock()
				}
			})
		}
	}
	g.Wait()
	for port, names := range made {
		if len(names) != 1 {
			t.Errorf("port %d belongs to %v", port, names)
		}
	}
	if len(made) != ports {
		t.Errorf("%d of %d ports were given", len(made), ports)
	}
}

func testBothAddresses(t *testing.T, c kubernetes.Interface) {
	t.Helper()
	want := "192.0.2.10 192.0.2.11"
	eventually(t, "both addresses", func(ctx context.Context) (bool, error) {
		slice, err := c.DiscoveryV1().EndpointSlices("default").Get(ctx, "kubernetes", metav1.GetOptions{})
		if err != nil {
			return false, err
		}
		var have []string
		for _, e := range slice.Endpoints {
			have = append(have, e.Addresses...)
		}
		slices.Sort(have)
		return strings.Join(have, " ") == want, nil
	})
}

func withExtra(c *Config) {
	c.Extra = map[string]http.Handler{"/swarm/v1/": http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		name, groups := User(r.Context())
		fmt.Fprintf(w, "%s %v %s", name, groups, r.URL.Path)
	})}
	c.ExtraLong = func(r *http.Request) bool { return r.URL.Path == "/swarm/v1/long" }
}

func testExtra(t *testing.T, n *node) {
	t.Helper()
	ask := func(c *rest.Config) (string, error) {
		raw, err := client(t, c).RESTClient().Get().AbsPath("/swarm/v1/status").DoRaw(t.Context())
		return string(raw), err
	}
	if got, err := ask(n.as(t, "root", "system:masters")); err != nil || got != "root [system:masters system:authenticated] /swarm/v1/status" {
		t.Errorf("an administrator: %q, %v", got, err)
	}
	if _, err := ask(n.as(t, "jane")); !apierrors.IsForbidden(err) {
		t.Errorf("somebody without a role: %v", err)
	}
	if code, body, _ := n.get(t, "/swarm/v1/status", nil); code != http.StatusUnauthorized {
		t.Errorf("somebody without a name: %d %s", code, body)
	}
	role := &rbacv1.ClusterRole{
		ObjectMeta: metav1.ObjectMeta{Name: "look"},
		Rules:      []rbacv1.PolicyRule{{Verbs: []string{"get"}, NonResourceURLs: []string{"/swarm/v1/*"}}},
	}
	binding := &rbacv1.ClusterRoleBinding{
		ObjectMeta: metav1.ObjectMeta{Name: "look"}, RoleRef: rbacv1.RoleRef{APIGroup: rbacv1.GroupName, Kind: "ClusterRole", Name: "look"},
		Subjects: []rbacv1.Subject{{APIGroup: rbacv1.GroupName, Kind: "User", Name: "jane"}},
	}
	admin := n.admin(t)
	if _, err := admin.RbacV1().ClusterRoles().Create(t.Context(), role, metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	if _, err := admin.RbacV1().ClusterRoleBindings().Create(t.Context(), binding, metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	eventually(t, "a role for nonResourceURLs", func(context.Context) (bool, error) {
		got, err := ask(n.as(t, "jane"))
		return err == nil && strings.HasPrefix(got, "jane "), nil
	})
	if err := client(t, n.as(t, "jane")).RESTClient().Post().AbsPath("/swarm/v1/status").Do(t.Context()).Error(); !apierrors.IsForbidden(err) {
		t.Errorf("a verb that the role does not have: %v", err)
	}
}

func TestCheckExtra(t *testing.T) {
	h := http.NotFoundHandler()
	for prefix, good := range map[string]bool{
		"/swarm/v1/": true, "/swarm/": true, "/": false, "": false, "/swarm/v1": false, "swarm/v1/": false, "/api/": false, "/apis/swarm/": false,
	} {
		if err := checkExtra(map[string]http.Handler{prefix: h}); (err == nil) != good {
			t.Errorf("%q: %v", prefix, err)
		}
	}
	if checkExtra(map[string]http.Handler{"/swarm/": nil}) == nil {
		t.Error("no handler is no error")
	}
}
