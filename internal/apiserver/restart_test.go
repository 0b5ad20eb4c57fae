package apiserver

import (
	"context"
	"errors"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"
)

const auditPolicy = `apiVersion: audit.k8s.io/v1
kind: Policy
rules:
- level: Metadata
  resources: [{group: "", resources: [secrets]}]
- level: None
`

// TestRestart follows one data directory through two lives of a server.
func TestRestart(t *testing.T) {
	dir := t.TempDir()
	policy, log := filepath.Join(dir, "policy.yaml"), filepath.Join(dir, "audit.log")
	if err := os.WriteFile(policy, []byte(auditPolicy), 0o600); err != nil {
		t.Fatal(err)
	}
	audited := func(c *Config) { c.AuditPolicyFile, c.AuditLogPath = policy, log }

	n := start(t, dir, audited)
	ctx, c := t.Context(), n.admin(t)
	first := makeService(t, c, "first")
	secret := &corev1.Secret{ObjectMeta: metav1.ObjectMeta{Name: "s"}, StringData: map[string]string{"password": plaintext}}
	if _, err := c.CoreV1().Secrets("default").Create(ctx, secret, metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	readSecret(t, c)
	n.stop()

	if hits := filesWith(t, filepath.Join(dir, "state"), plaintext); len(hits) > 0 {
		t.Errorf("the secret can be read in %v", hits)
	}
	if hits := filesWith(t, filepath.Join(dir, "state"), "k8s:enc:secretbox:v1:key1:"); len(hits) == 0 {
		t.Error("nothing in the state is encrypted; the check above proves nothing")
	}
	data, err := os.ReadFile(log)
	if err != nil {
		t.Fatal(err)
	}
	if text := string(data); !strings.Contains(text, `"resource":"secrets"`) || strings.Contains(text, `"resource":"services"`) || strings.Contains(text, plaintext) {
		t.Errorf("audit log does not follow its policy:\n%.2000s", text)
	}

	n = start(t, dir)
	c = n.admin(t)
	readSecret(t, c)
	taken := &corev1.Service{ObjectMeta: metav1.ObjectMeta{Name: "thief"}, Spec: nodePortSpec(first.Spec.Ports[0].NodePort)}
	if _, err := c.CoreV1().Services("default").Create(ctx, taken, metav1.CreateOptions{}); err == nil || !strings.Contains(err.Error(), "already allocated") {
		t.Errorf("a node port in use before the restart: %v, want already allocated", err)
	}
	if again := makeService(t, c, "second"); again.Spec.ClusterIP == first.Spec.ClusterIP {
		t.Errorf("cluster IP %s was given twice", again.Spec.ClusterIP)
	}
	testRotation(t, n, c)
	// Freed by deletion.
	if err := c.CoreV1().Services("default").Delete(ctx, "first", metav1.DeleteOptions{}); err != nil {
		t.Fatal(err)
	}
	if _, err := c.CoreV1().Services("default").Create(ctx, taken, metav1.CreateOptions{}); err != nil {
		t.Errorf("a node port of a deleted Service: %v", err)
	}
}

const plaintext = "correct-horse-battery-staple"

func readSecret(t *testing.T, c kubernetes.Interface) {
	t.Helper()
	s, err := c.CoreV1().Secrets("default").Get(t.Context(), "s", metav1.GetOptions{})
	if err != nil || string(s.Data["password"]) != plaintext {
		t.Fatalf("read the secret: %v, %v", s, err)
	}
}

func nodePortSpec(port int32) corev1.ServiceSpec {
	return corev1.ServiceSpec{
		Type: corev1.ServiceTypeNodePort, Selector: map[string]string{"a": "b"},
		Ports: []corev1.ServicePort{{Port: 80, NodePort: port}},
	}
}

func makeService(t *testing.T, c kubernetes.Interface, name string) *corev1.Service {
	t.Helper()
	s, err := c.CoreV1().Services("default").Create(t.Context(),
		&corev1.Service{ObjectMeta: metav1.ObjectMeta{Name: name}, Spec: nodePortSpec(0)}, metav1.CreateOptions{})
	if err != nil {
		t.Fatal(err)
	}
	if s.Spec.Ports[0].NodePort == 0 || !strings.HasPrefix(s.Spec.ClusterIP, "10.43.") {
		t.Fatalf("service got port %d and address %q", s.Spec.Ports[0].NodePort, s.Spec.ClusterIP)
	}
	return s
}

func testRotation(t *testing.T, n *node, c kubernetes.Interface) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	if err := n.RotateEncryptionKey(ctx); err != nil {
		t.Fatal(err)
	}
	keys, err := n.keys.EncryptionKeys()
	if err != nil || len(keys) != 1 || keys[0] != "key2" {
		t.Errorf("keys after rotation: %v, %v; want only key2", keys, err)
	}
	readSecret(t, c)
	e, ok := n.store.View().Get("/secrets/default/s")
	if !ok || !strings.HasPrefix(string(e.Value), "k8s:enc:secretbox:v1:key2:") {
		t.Errorf("the stored secret is not under the new key: %v, %.40q", ok, e.Value)
	}
}

// filesWith lists the files below dir that contain text.
func filesWith(t *testing.T, dir, text string) []string {
	t.Helper()
	var hits []string
	err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		data, err := os.ReadFile(path)
		if strings.Contains(string(data), text) {
			hits = append(hits, path)
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return hits
}

func TestPortInUse(t *testing.T) {
	l, err := (&net.ListenConfig{}).Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	addr := l.Addr().String()
	_, err = listen(t.Context(), addr)
	want := "listen " + addr + ": address already in use: another program has the port; choose another with --api-addr"
	if err == nil || err.Error() != want || !errors.Is(err, syscall.EADDRINUSE) {
		t.Errorf("got  %v\nwant %s", err, want)
	}
	if _, err := listen(t.Context(), "192.0.2.200:6443"); err == nil || !strings.Contains(err.Error(), "no interface of this machine") {
		t.Errorf("foreign address: %v", err)
	}
}

func TestAuditSettings(t *testing.T) {
	dir := t.TempDir()
	write := func(name, text string) string {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	good, log := write("good", auditPolicy), filepath.Join(dir, "log")
	tests := map[string]struct{ policy, log, want string }{
		"off":            {"", "", ""},
		"on":             {good, log, ""},
		"standard out":   {good, "-", ""},
		"no policy":      {"", log, "no audit policy file is set"},
		"no log":         {good, "", "no audit log path is set"},
		"missing policy": {filepath.Join(dir, "none"), log, "no such file"},
		"bad level":      {write("bad", strings.Replace(auditPolicy, "Metadata", "Everything", 1)), log, "Everything"},
		"not a policy":   {write("junk", "a: [b"), log, "audit policy"},
		"no directory":   {good, filepath.Join(dir, "none", "log"), "directory does not exist"},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			err := checkAudit(tt.policy, tt.log)
			if tt.want == "" {
				if err != nil {
					t.Error(err)
				}
				return
			}
			if err == nil || !strings.Contains(err.Error(), tt.want) || strings.Contains(err.Error(), "\n") {
				t.Errorf("got %v, want one line with %q", err, tt.want)
			}
		})
	}
}

func TestWithAddress(t *testing.T) {
	a, b := "a", "b"
	ports := []corev1.EndpointPort{{Name: "https", Port: 6443}}
	cur := &corev1.Endpoints{Subsets: []corev1.EndpointSubset{{ //nolint:staticcheck // deprecated, but served
		Addresses: []corev1.EndpointAddress{
			{IP: "192.0.2.9", NodeName: &a},  // our old address
			{IP: "192.0.2.10", NodeName: &b}, // another node's
			{IP: "192.0.2.3"},                // nobody's
		},
		Ports: ports,
	}}}
	got := withAddress(cur, corev1.EndpointAddress{IP: "192.0.2.200", NodeName: &a}, ports)
	var list []string
	for _, x := range got.Subsets[0].Addresses {
		list = append(list, *x.NodeName+"="+x.IP)
	}
	if s := strings.Join(list, " "); s != "b=192.0.2.10 a=192.0.2.200" {
		t.Errorf("got %s", s)
	}
	again := withAddress(got, corev1.EndpointAddress{IP: "192.0.2.200", NodeName: &a}, ports)
	if strconv.Quote(again.String()) != strconv.Quote(got.String()) {
		t.Error("not idempotent")
	}
	if len(cur.Subsets[0].Addresses) != 3 {
		t.Error("changed its argument")
	}
}
